"""From tensors to the arrays that groups take, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend.device import device_of, move, resolve
from dtrain.comm.work import FinishedBy, Work
from dtrain.errors import ArgumentError


class ReduceOp(Enum):
    """How ranks combine their numbers."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "prod"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"

    @property
    def RedOpType(self) -> ReduceOp:  # noqa: N802
        return self


def name_of(op: Any) -> str:
    """The name by which groups know ``op``."""
    try:
        return ReduceOp(op).value
    except ValueError:
        raise ArgumentError(f"unknown reduction {op!r}; expected one of {', '.join(f'ReduceOp.{m.name}' for m in ReduceOp)}") from None


def array_of(tensor: Any, name: str = "tensor", written: bool = False) -> Any:
    """The array of ``tensor``; if it is ``written`` its version grows, so that autograd notices."""
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"{name} must be a Tensor, not {type(tensor).__name__}")
    if written:
        tensor._vc[0] += 1
    return tensor._array


def arrays_of(tensors: Any, name: str, size: int, written: bool = False) -> list[Any]:
    """The arrays of a list of ``size`` tensors, one per rank."""
    if not isinstance(tensors, (list, tuple)) or len(tensors) != size:
        found = f"{len(tensors)}" if isinstance(tensors, (list, tuple)) else type(tensors).__name__
        raise ArgumentError(f"{name} must be a list of {size} tensors, one per rank of the group; got {found}")
    return [array_of(tensor, f"{name}[{i}]", written) for i, tensor in enumerate(tensors)]


def stacked(arrays: Sequence[Any]) -> np.ndarray:
    """Equal-shaped arrays as one host array with a leading axis."""
    host = [move(array, resolve("cpu")) for array in arrays]
    if any(h.shape != host[0].shape or h.dtype != host[0].dtype for h in host):
        raise ArgumentError(f"the tensors of a list must agree in shape and dtype; got {[(h.dtype.name, h.shape) for h in host]}")
    return np.stack(host)


def fill(arrays: Sequence[Any], rows: Sequence[np.ndarray]) -> None:
    """Copy host ``rows`` into ``arrays``."""
    for array, row in zip(arrays, rows):
        array[...] = move(row.reshape(array.shape), device_of(array))


def answer(work: Work, async_op: bool, finish: Callable[[], Any] | None = None) -> Work | None:
    """What a collective returns: its work if it is asynchronous, else None, when all is done."""
    if finish is not None:
        work = FinishedBy(work, finish)
    if async_op:
        return work
    work.wait()
    return None
