"""Work on arrays in pieces that fit the cache.

A chain of NumPy calls over a large array goes to main memory and back at every call. Over one piece after the other
the temporaries stay in the cache, which makes such a chain several times faster. Other backends take the array whole.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

BLOCK = 1 << 14  # elements: float32 temporaries of 64 KiB, below malloc's mmap threshold and within the L2 cache


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


def row_blocks(xp: Any, shape: tuple[int, ...], size: int = 4 * BLOCK) -> Iterator[slice]:
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
