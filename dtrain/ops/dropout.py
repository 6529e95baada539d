"""Dropout: elements, or whole channels, set to zero at random. The masks of one seed are the same on CPU and GPU."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace, random
from dtrain.backend.blocks import in_blocks
from dtrain.errors import ArgumentError, ShapeError

_SATURATION = -1.7580993408473766  # minus selu's scale times alpha, which alpha dropout puts in place of what it drops


class Dropout(Op):
    """y = x * keep * scale, ``keep`` a bool array that broadcasts; its own gradient."""

    def __init__(self, keep: Any, scale: float) -> None:
        self.keep, self.scale = keep, scale

    def forward(self, xp: Any, x: Any) -> Any:
        return in_blocks(xp, self._drop, x, self.keep)

    def _drop(self, x: Any, keep: Any) -> Any:
        y = x * keep
        y *= self.scale
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(Dropout(self.keep, self.scale), g),)


def keep(input: Tensor, shape: tuple[int, ...], p: float) -> Any:
    """The next mask of the generator of the input's device."""
    xp = namespace.of(input._array)
    if xp.name == "meta":
        return xp.ones(shape, bool)
    generator = random.default_generator(input.device)
    return random.dropout_mask(xp, shape, p, generator)


def _checked(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"{name}: p is {p}; expected a probability of 0 to 1")


def _drop(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _checked(name, p)
    if not training or p == 0.0:
        return input
    op = Dropout(keep(input, shape, p), 1 / (1 - p) if p < 1 else 0.0)
    return apply_(op, input) if inplace else apply(op, input)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training each element is 0 with probability ``p``, else divided by 1 - p; otherwise the input itself."""
    return _drop("dropout", input, p, training, inplace, tuple(input.shape))


def _channelwise(name: str, input: Tensor, dims: tuple[int, ...]) -> tuple[int, ...]:
    """The mask's shape for inputs of ``dims`` numbers of dims, the smaller of them without a batch."""
    if input.ndim not in dims:
        raise ShapeError(f"{name} expects an input of {' or '.join(map(str, dims))} dims, got shape {tuple(input.shape)}")
    lead = 1 if input.ndim == min(dims) and len(dims) > 1 else 2
    return tuple(input.shape[:lead]) + (1,) * (input.ndim - lead)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L)."""
    return _drop("dropout1d", input, p, training, inplace, _channelwise("dropout1d", input, (2, 3)))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W); three dims are (N, C, L)."""
    return _drop("dropout2d", input, p, training, inplace, tuple(input.shape[:2]) + (1,) * (input.ndim - 2))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return _drop("dropout3d", input, p, training, inplace, _channelwise("dropout3d", input, (4, 5)))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of selu's outputs (Klambauer and others, 2017)."""
    return _alpha("alpha_dropout", input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels of (N, C, ...)."""
    return _alpha("feature_alpha_dropout", input, p, training, inplace, tuple(input.shape[:2]) + (1,) * (input.ndim - 2))


def _alpha(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _checked(name, p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input * 0
    kept = Tensor._wrap(keep(input, shape, p)).to(input.dtype)  # type: ignore[attr-defined]
    scale = ((1 - p) * (1 + p * _SATURATION**2)) ** -0.5
    out = input * (kept * scale) + ((1 - kept) * (_SATURATION * scale) - _SATURATION * scale * p)
    return input.copy_(out) if inplace else out  # type: ignore[attr-defined]
