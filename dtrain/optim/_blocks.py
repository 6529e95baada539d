"""Element-wise updates in place, in blocks that stay in the cache.

An update such as Adam's is a dozen passes over five arrays. Done array by array every pass goes to main memory; done
block by block only the first does. CuPy arrays are one block: there a launch costs more than the memory saves.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from dtrain.backend import cuda_guard, namespace

BLOCK = 1 << 15  # elements: five float32 blocks of 128 KiB fit the second-level cache of any server of this decade


def run(update: Callable[..., None], arrays: tuple, numbers: tuple, num_scratch: int) -> None:
    """``update(xp, blocks, scratch, *numbers)`` over all blocks of ``arrays`` (equal shapes; None stays None).

    ``arrays[0]`` is the parameter, ``arrays[1]`` its gradient; ``update`` writes into all but the gradient. Halves
    are computed in float32. Numbers are given in the form the array library is fastest with.
    """
    param = arrays[0]
    xp = namespace.of(param)
    work = param.dtype if param.dtype.itemsize > 2 else np.dtype(np.float32)
    compute = _plainly if work is param.dtype else _in_float32
    if xp.is_cuda:
        with cuda_guard([param]):
            compute(xp, update, arrays, numbers, num_scratch)
    elif xp.name == "numpy":
        constants = _as_arrays(numbers, work)
        if param.size <= BLOCK:
            compute(xp, update, arrays, constants, num_scratch)
            return
        for blocks in _blocks_of(arrays):
            compute(xp, update, blocks, constants, num_scratch)


@lru_cache(32)
def _as_arrays(numbers: tuple, dtype: Any) -> list:
    """Floats as 0-dim arrays, for which NumPy takes half the time. The parameters of one step share them."""
    return [np.array(x, dtype) if isinstance(x, float) else x for x in numbers]


def _blocks_of(arrays: tuple) -> Iterator[Sequence]:
    size = arrays[0].size
    if not all(a is None or a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [None if a is None else a.reshape(-1) for a in arrays]
    for start in range(0, size, BLOCK):
        yield [None if a is None else a[start : start + BLOCK] for a in flat]


def _plainly(xp: Any, update: Callable[..., None], blocks: Sequence, numbers: Sequence, num_scratch: int) -> None:
    update(xp, blocks, [xp.empty_like(blocks[0]) for _ in range(num_scratch)], *numbers)


def _in_float32(xp: Any, update: Callable[..., None], blocks: Sequence, numbers: Sequence, num_scratch: int) -> None:
    wide = [None if b is None else b.astype(np.float32) for b in blocks]
    _plainly(xp, update, wide, numbers, num_scratch)
    for i, (block, result) in enumerate(zip(blocks, wide)):
        if i != 1 and block is not None:
            xp.copyto(block, result.astype(block.dtype))
