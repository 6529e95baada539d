"""Work on arrays in pieces that fit the cache.

A chain of NumPy calls over a large array goes to main memory and back at every call. Over one piece after the other
the temporaries stay in the cache, which makes such a chain several times faster. Other backends take the array whole.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Iterator

import numpy as np

BLOCK = 1 << 15  # elements: float32 temporaries of 128 KiB, several of which fit the L2 cache


def in_blocks(xp: Any, f: Callable, *arrays: Any) -> Any:
    """``f(*arrays)`` for an elementwise ``f`` of arrays of one shape and dtype, the result in the same shape and dtype."""
    first = arrays[0]
    if xp.name != "numpy" or first.size <= 2 * BLOCK or not all(_alike(a, first) for a in arrays):
        return f(*arrays)
    out = np.empty_like(first)
    target = out.reshape(-1)
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, first.size, BLOCK):
        piece = slice(start, start + BLOCK)
        target[piece] = f(*[a[piece] for a in flat])
    return out


def _alike(a: Any, first: Any) -> bool:
    return a.shape == first.shape and a.flags.c_contiguous


def row_blocks(xp: Any, shape: tuple[int, ...], size: int = 2 * BLOCK) -> Iterator[slice]:
    """Slices of dim 0 that hold about ``size`` elements each; one slice for all of it where blocks do not pay."""
    rows = shape[0]
    width = 1
    for n in shape[1:]:
        width *= n
    if xp.name != "numpy" or rows * width <= 2 * size:
        yield slice(0, rows)
        return
    step = max(1, size // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class Scratch:
    """Arrays used again for every piece: fresh ones of this size would come from the system page by page."""

    def __init__(self) -> None:
        self.arrays: dict[Any, Any] = {}

    def empty(self, xp: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """The memory called ``name`` as an array of ``shape``, with whatever is in it."""
        size = math.prod(shape)
        flat = self.arrays.get(name)
        if flat is None or flat.size < size:
            flat = self.arrays[name] = xp.empty(size, dtype)
        return flat[:size].reshape(shape)

    def zeros(self, xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array of ``shape``: zeros at first, then what was written into it."""
        found = self.arrays.get(shape)
        if found is None:
            found = self.arrays[shape] = xp.zeros(shape, dtype)
        return found


def row_max(xp: Any, x: Any, axis: int) -> Any:
    """``max`` with keepdims. NumPy's is slow on short contiguous rows: those are folded in halves instead."""
    if xp.name != "numpy" or axis not in (-1, x.ndim - 1) or x.shape[axis] > 128 or x.size < 4 * x.shape[axis]:
        return xp.max(x, axis=axis, keepdims=True)
    width = x.shape[-1]
    while width > 1:
        half = (width + 1) // 2
        x = np.maximum(x[..., :half], x[..., width - half : width])
        width = half
    return x


def row_sum(xp: Any, x: Any, axis: int) -> Any:
    """``sum`` with keepdims; along short contiguous rows by einsum, which takes a third of the time."""
    if xp.name != "numpy" or axis not in (-1, x.ndim - 1) or x.shape[axis] > 4096:
        return xp.sum(x, axis=axis, keepdims=True)
    return np.einsum("...i->...", x)[..., None]


def row_dot(xp: Any, a: Any, b: Any, axis: int) -> Any:
    """``sum(a * b)`` with keepdims, without the product in memory where that is possible."""
    if xp.name != "numpy" or axis not in (-1, a.ndim - 1):
        return xp.sum(a * b, axis=axis, keepdims=True)
    return np.einsum("...i,...i->...", a, b)[..., None]


def total(xp: Any, a: Any, axes: tuple[int, ...]) -> Any:
    """The sum over axes, which stay as 1; the last axis first, where the fast row sum works."""
    if a.ndim - 1 in axes:
        a = row_sum(xp, a, a.ndim - 1)
        axes = axes[:-1]
    return xp.sum(a, axis=axes, keepdims=True) if axes else a


def total_product(xp: Any, a: Any, b: Any, axes: tuple[int, ...]) -> Any:
    """The sum of a * b over axes, which stay as 1."""
    if a.ndim - 1 in axes:
        a = row_dot(xp, a, b, a.ndim - 1)
        axes = axes[:-1]
        return xp.sum(a, axis=axes, keepdims=True) if axes else a
    if a.ndim == 2 and axes == (0,) and xp.name == "numpy":
        return np.einsum("ij,ij->j", a, b)[None]
    return xp.sum(a * b, axis=axes, keepdims=True)
