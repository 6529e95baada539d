"""Element-wise updates in place, in blocks that stay in the cache.

An update such as Adam's is a dozen passes over five arrays. Done array by array every pass goes to main memory; done
block by block only the first does. CuPy arrays are one block: there a launch costs more than the memory saves.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Sequence

import numpy as np

from dtrain.backend import cuda_guard, namespace

BLOCK = 1 << 15  # elements: five float32 blocks of 128 KiB fit the second-level cache of any server of this decade


def run(update: Callable[..., None], arrays: tuple, numbers: tuple, num_scratch: int) -> None:
    """``update(xp, blocks, scratch, *numbers)`` over all blocks of ``arrays`` (equal shapes; None stays None).

    ``arrays[0]`` is the parameter, ``arrays[1]`` its gradient; ``update`` writes into all but the gradient. Half
    arrays are computed in float32 on the CPU. Numbers are given in the form the array library is fastest with.
    """
    param = arrays[0]
    xp = namespace.of(param)
    if xp.is_cuda:
        with cuda_guard([param]):
            update(xp, arrays, [xp.empty_like(param) for _ in range(num_scratch)], *numbers)
        return
    if xp.name != "numpy":
        return
    work = param.dtype if param.dtype.itemsize > 2 else np.dtype(np.float32)
    constants = [np.array(x, work) if isinstance(x, float) else x for x in numbers]  # 0-dim: half the cost of a float
    for blocks in _blocks_of(arrays):
        if work is param.dtype:
            update(xp, blocks, [np.empty_like(blocks[0]) for _ in range(num_scratch)], *constants)
        else:
            _in(work, update, blocks, constants, num_scratch)


def _blocks_of(arrays: tuple) -> Iterator[Sequence]:
    size = arrays[0].size
    if size <= BLOCK or not all(a is None or a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [None if a is None else a.reshape(-1) for a in arrays]
    for start in range(0, size, BLOCK):
        yield [None if a is None else a[start : start + BLOCK] for a in flat]


def _in(work: Any, update: Callable[..., None], blocks: Sequence, constants: list, num_scratch: int) -> None:
    """The update computed in the dtype ``work``."""
    wide = [None if b is None else b.astype(work) for b in blocks]
    update(namespace.numpy, wide, [np.empty_like(wide[0]) for _ in range(num_scratch)], *constants)
    for i, (block, result) in enumerate(zip(blocks, wide)):
        if i != 1 and block is not None:
            block[...] = result
