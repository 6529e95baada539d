"""PyTorch's collectives over tensors. Roots are numbers in the world; ``async_op=True`` returns a Work, otherwise None.

On ranks outside ``group`` each call warns and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.comm.group import Group
from dtrain.comm.work import Work, seconds
from dtrain.distributed.process_group import member, root_of
from dtrain.distributed.tensors import ReduceOp, answer, array_of, arrays_of, fill, name_of, stacked
from dtrain.errors import CollectiveTimeout, ShapeError


def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Group | None = None, async_op: bool = False) -> Work | None:
    """Reduce ``tensor`` over the ranks, in place, to the same bits everywhere."""
    found = member(group, "all_reduce")
    if found is None:
        return None
    return answer(found.all_reduce(array_of(tensor, written=True), name_of(op), async_op), async_op)


def reduce(tensor: Tensor, dst: int | None = None, op: Any = ReduceOp.SUM, group: Group | None = None,
           async_op: bool = False, group_dst: int | None = None) -> Work | None:
    """Reduce ``tensor`` into that of rank ``dst``; the others keep theirs."""
    found = member(group, "reduce")
    if found is None:
        return None
    root = root_of(found, dst, group_dst, "dst")
    array = array_of(tensor, written=found.rank == root)
    return answer(found.reduce(array, root, name_of(op), async_op), async_op)


def broadcast(tensor: Tensor, src: int | None = None, group: Group | None = None, async_op: bool = False,
              group_src: int | None = None) -> Work | None:
    """Copy ``tensor`` of rank ``src`` into that of all others."""
    found = member(group, "broadcast")
    if found is None:
        return None
    root = root_of(found, src, group_src, "src")
    return answer(found.broadcast(array_of(tensor, written=found.rank != root), root, async_op), async_op)


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Group | None = None, async_op: bool = False) -> Work | None:
    """Copy ``tensor`` of rank i into ``tensor_list[i]`` everywhere."""
    found = member(group, "all_gather")
    if found is None:
        return None
    array, outs = array_of(tensor), arrays_of(tensor_list, "tensor_list", found.size, True)
    rows = np.empty((found.size, *array.shape), array.dtype)
    _check_rows(outs, array, "tensor_list")
    return answer(found.all_gather(rows, array, async_op), async_op, lambda: fill(outs, rows))


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Group | None = None,
                           async_op: bool = False) -> Work | None:
    """Gather into one tensor, (size * n, ...) or (size, n, ...) for an input of (n, ...)."""
    found = member(group, "all_gather_into_tensor")
    if found is None:
        return None
    array, out = array_of(input_tensor, "input_tensor"), array_of(output_tensor, "output_tensor", True)
    rows, finish = _rows(out, array.shape, found.size, "output_tensor")
    return answer(found.all_gather(rows, array, async_op), async_op, finish)


def gather(tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int | None = None, group: Group | None = None,
           async_op: bool = False, group_dst: int | None = None) -> Work | None:
    """Copy ``tensor`` of rank i into ``gather_list[i]`` on rank ``dst``."""
    found = member(group, "gather")
    if found is None:
        return None
    array, root = array_of(tensor), root_of(found, dst, group_dst, "dst")
    if found.rank != root:
        return answer(found.gather(None, array, root, async_op), async_op)
    outs = arrays_of(gather_list, "gather_list", found.size, True)
    _check_rows(outs, array, "gather_list")
    rows = np.empty((found.size, *array.shape), array.dtype)
    return answer(found.gather(rows, array, root, async_op), async_op, lambda: fill(outs, rows))


def scatter(tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int | None = None, group: Group | None = None,
            async_op: bool = False, group_src: int | None = None) -> Work | None:
    """Copy ``scatter_list[i]`` of rank ``src`` into ``tensor`` of rank i."""
    found = member(group, "scatter")
    if found is None:
        return None
    array, root = array_of(tensor, written=True), root_of(found, src, group_src, "src")
    rows = stacked(arrays_of(scatter_list, "scatter_list", found.size)) if found.rank == root else None
    return answer(found.scatter(array, rows, root, async_op), async_op)


def reduce_scatter(output: Tensor, input_list: list[Tensor], op: Any = ReduceOp.SUM, group: Group | None = None,
                   async_op: bool = False) -> Work | None:
    """Reduce the lists over the ranks and leave element i in ``output`` of rank i."""
    found = member(group, "reduce_scatter")
    if found is None:
        return None
    rows = stacked(arrays_of(input_list, "input_list", found.size))
    return answer(found.reduce_scatter(array_of(output, "output", True), rows, name_of(op), async_op), async_op)


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Group | None = None,
                          async_op: bool = False) -> Work | None:
    """Reduce ``input``, (size * n, ...) or (size, n, ...), and leave part i in ``output`` (n, ...) of rank i."""
    found = member(group, "reduce_scatter_tensor")
    if found is None:
        return None
    out, array = array_of(output, "output", True), array_of(input, "input")
    rows, _ = _rows(array, out.shape, found.size, "input")
    return answer(found.reduce_scatter(out, rows, name_of(op), async_op), async_op)


def all_to_all(output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], group: Group | None = None,
               async_op: bool = False) -> Work | None:
    """Send ``input_tensor_list[i]`` to rank i; ``output_tensor_list[i]`` comes from rank i. Shapes may differ."""
    found = member(group, "all_to_all")
    if found is None:
        return None
    outs = arrays_of(output_tensor_list, "output_tensor_list", found.size, True)
    ins = arrays_of(input_tensor_list, "input_tensor_list", found.size)
    sent = np.concatenate([stacked([a]).reshape(-1) for a in ins])
    came, sizes = np.empty(sum(o.size for o in outs), sent.dtype), [o.size for o in outs]
    work = found.all_to_all(came, sent, sizes, [a.size for a in ins], async_op)
    return answer(work, async_op, lambda: fill(outs, np.split(came, np.cumsum(sizes)[:-1])))


def all_to_all_single(output: Tensor, input: Tensor, output_split_sizes: Sequence[int] | None = None,
                      input_split_sizes: Sequence[int] | None = None, group: Group | None = None,
                      async_op: bool = False) -> Work | None:
    """Send the i-th part of ``input`` to rank i; part i of ``output`` comes from rank i. Parts are rows, equal if no splits."""
    found = member(group, "all_to_all_single")
    if found is None:
        return None
    work = found.all_to_all(array_of(output, "output", True), array_of(input, "input"), output_split_sizes or None,
                            input_split_sizes or None, async_op)
    return answer(work, async_op)


def barrier(group: Group | None = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Return when all ranks have called it."""
    found = member(group, "barrier")
    return None if found is None else answer(found.barrier(async_op), async_op)


def monitored_barrier(group: Group | None = None, timeout: timedelta | float | None = None, wait_all_ranks: bool = False) -> None:
    """A barrier with a deadline of its own. Raises CollectiveTimeout, a RuntimeError, naming all ranks that did not come."""
    found = member(group, "monitored_barrier")
    if found is None:
        return
    try:
        found.barrier(timeout=seconds(timeout))
    except CollectiveTimeout as error:
        raise CollectiveTimeout(f"monitored_barrier: {error}") from None


def _check_rows(outs: Sequence[Any], array: Any, name: str) -> None:
    for i, out in enumerate(outs):
        if out.shape != array.shape or out.dtype != array.dtype:
            raise ShapeError(f"{name}[{i}] is {out.dtype} of shape {tuple(out.shape)}; expected {array.dtype} of shape {tuple(array.shape)}")


def _rows(whole: Any, part: tuple[int, ...], size: int, name: str) -> tuple[Any, Any]:
    """``whole`` seen as (size, *part), and how to bring back what was written if that had to be a copy."""
    shape, rows = tuple(whole.shape), (size, *part)
    if shape == rows:
        return whole, None
    if not part or shape != (size * part[0], *part[1:]):
        raise ShapeError(f"{name} has shape {shape}; for parts of {tuple(part)} on {size} ranks it must be {rows}"
                         + (f" or {(size * part[0], *part[1:])}" if part else f" or {(size,)}"))
    view = whole.reshape(rows)
    if not isinstance(whole, np.ndarray) or np.shares_memory(view, whole) or not whole.size:
        return view, None
    return view, lambda: fill([whole], [view])
