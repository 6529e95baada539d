"""Padding of an array's last dims."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops.index import Slice, getitem
from dtrain.ops.shape import narrow


class Pad(Op):
    """x inside an array of one value; ``widths`` are (before, after) of each dim."""

    half_as_float = False

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float) -> None:
        self.widths, self.value = widths, value

    def forward(self, xp: Any, x: Any) -> Any:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, self.widths))
        out = xp.zeros(shape, x.dtype) if self.value == 0 else xp.full(shape, self.value, x.dtype)
        self.inside = tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, self.widths))
        out[self.inside] = x
        return out

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(Slice(self.inside), g),)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last dims: ``pad`` is (before, after) of the last dim, then of the one before it, and so on.

    mode "constant" fills with ``value`` (and negative widths cut off); "reflect" mirrors without the edge, "replicate"
    repeats the edge, "circular" goes on at the other end.
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ArgumentError(f"pad needs (before, after) for at most {input.ndim} dims of shape {tuple(input.shape)}, got {tuple(pad)}")
    widths = [(0, 0)] * (input.ndim - len(pad) // 2) + [(int(pad[i]), int(pad[i + 1])) for i in range(len(pad) - 2, -1, -2)]
    if mode == "constant":
        return _constant(input, widths, value or 0)
    if mode not in _INDICES:
        raise ArgumentError(f"pad: mode is {mode!r}; expected 'constant', {', '.join(map(repr, _INDICES))}")
    if value:
        raise ArgumentError(f"pad: mode {mode!r} takes no value, got {value}")
    for dim, (before, after) in enumerate(widths):
        if (before, after) != (0, 0):
            index = _INDICES[mode](input.shape[dim], before, after)
            input = getitem(input, (slice(None),) * dim + (Tensor._wrap(namespace.of(input._array).asarray(index)),))
    return input


def _constant(input: Tensor, widths: list[tuple[int, int]], value: float) -> Tensor:
    for dim, (before, after) in enumerate(widths):
        cut = max(-before, 0), max(-after, 0)
        if any(cut):
            left = input.shape[dim] - sum(cut)
            if left < 0:
                raise ShapeError(f"pad: widths {(before, after)} cut more than dim {dim} of shape {tuple(input.shape)} holds")
            input = narrow(input, dim, cut[0], left)
    grown = tuple((max(a, 0), max(b, 0)) for a, b in widths)
    return apply(Pad(grown, value), input)


def _reflect(n: int, before: int, after: int) -> np.ndarray:
    if max(before, after) >= n:
        raise ShapeError(f"pad: reflecting needs widths smaller than the size {n}, got {(before, after)}")
    place = np.abs(np.arange(-before, n + after))
    return np.where(place >= n, 2 * (n - 1) - place, place)


def _replicate(n: int, before: int, after: int) -> np.ndarray:
    return np.clip(np.arange(-before, n + after), 0, n - 1)


def _circular(n: int, before: int, after: int) -> np.ndarray:
    if max(before, after) > n:
        raise ShapeError(f"pad: circular needs widths of at most the size {n}, got {(before, after)}")
    return np.arange(-before, n + after) % n


_INDICES = {"reflect": _reflect, "replicate": _replicate, "circular": _circular}
