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

    mode "constant" fills with ``value`` (0), "reflect" mirrors without the edge, "replicate" repeats the edge, "circular"
    goes on at the other end. Negative widths cut off. Raises ShapeError for widths that do not fit.
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(
            f"pad takes pairs (before, after), from the last dim on, of at most {input.ndim} dims for shape {tuple(input.shape)}; got {tuple(pad)}"
        )
    if mode != "constant" and mode not in _INDICES:
        raise ArgumentError(f"pad: mode is {mode!r}; expected one of constant, {', '.join(_INDICES)}")
    if mode != "constant" and value:
        raise ArgumentError(f"pad: value {value} belongs to mode 'constant', not to {mode!r}")
    widths = [(0, 0)] * (input.ndim - len(pad) // 2) + [(int(pad[i]), int(pad[i + 1])) for i in range(len(pad) - 2, -1, -2)]
    input = _cut(input, widths, mode)
    grown = tuple((max(before, 0), max(after, 0)) for before, after in widths)
    if mode == "constant":
        return apply(Pad(grown, value or 0), input)
    for dim, (before, after) in enumerate(grown):
        if before or after:
            index = _INDICES[mode](input.shape[dim], before, after)
            input = getitem(input, (slice(None),) * dim + (Tensor._wrap(namespace.of(input._array).asarray(index)),))
    return input


def _cut(input: Tensor, widths: list[tuple[int, int]], mode: str) -> Tensor:
    """The input without what negative widths cut off."""
    for dim, (before, after) in enumerate(widths):
        left = input.shape[dim] + min(before, 0) + min(after, 0)
        if left < (mode != "constant"):
            raise ShapeError(f"pad: widths {(before, after)} leave {left} elements of dim {dim} of shape {tuple(input.shape)}")
        if left != input.shape[dim]:
            input = narrow(input, dim, max(-before, 0), left)
    return input


def _fits(mode: str, most: int, before: int, after: int, n: int) -> None:
    if max(before, after) > most:
        raise ShapeError(f"pad: mode {mode!r} can add at most {most} elements to a side of size {n}, got {(before, after)}")


def _reflect(n: int, before: int, after: int) -> np.ndarray:
    _fits("reflect", n - 1, before, after, n)
    place = np.abs(np.arange(-before, n + after))
    return np.where(place >= n, 2 * (n - 1) - place, place)


def _replicate(n: int, before: int, after: int) -> np.ndarray:
    return np.clip(np.arange(-before, n + after), 0, n - 1)


def _circular(n: int, before: int, after: int) -> np.ndarray:
    _fits("circular", n, before, after, n)
    return np.arange(-before, n + after) % n


_INDICES = {"reflect": _reflect, "replicate": _replicate, "circular": _circular}
