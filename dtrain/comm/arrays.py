"""Arrays of any layout and device, as the C-contiguous host memory that transports move."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.comm.reduction import check_dtype
from dtrain.errors import ArgumentError, ShapeError


class Staged:
    """A host copy of ``array`` (or the array itself where that will do), and the way back.

    ``flat`` is one-dimensional and contiguous; ``commit`` writes it back if it is a copy. A device array
    is copied on its current stream, which is synchronised first, so the bytes are final.
    """

    __slots__ = ("array", "host", "flat", "shape", "dtype")

    def __init__(self, array: Any, *, write: bool = True) -> None:
        self.array = array
        host = array if isinstance(array, np.ndarray) else _to_host(array)
        check_dtype(host.dtype)
        if write and host is array and not array.flags.writeable:
            raise ArgumentError("the array is read-only, and the collective has to write into it; pass a copy")
        if not host.flags.c_contiguous:
            host = host.copy(order="C")
        self.host, self.shape, self.dtype = host, host.shape, host.dtype
        self.flat = host.reshape(-1)

    @property
    def bytes(self) -> np.ndarray:
        """The same memory as (nbytes,) uint8."""
        return as_bytes(self.flat)

    def commit(self) -> None:
        """Write a staged copy back into the caller's array."""
        if self.host is self.array:
            return
        if isinstance(self.array, np.ndarray):
            self.array[...] = self.host
        else:
            _to_device(self.array, self.host)


def as_bytes(flat: np.ndarray) -> np.ndarray:
    """A contiguous one-dimensional array seen as uint8."""
    return flat.view(np.uint8) if flat.size else np.empty(0, np.uint8)


def expect(what: str, staged: Staged, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ShapeError unless ``staged`` has this shape and dtype."""
    if staged.shape != shape or staged.dtype != dtype:
        raise ShapeError(
            f"{what} is {staged.dtype} of shape {staged.shape}; expected {dtype} of shape {shape} "
            "(one part per rank of the group along the first axis)"
        )


def _to_host(array: Any) -> np.ndarray:
    if not hasattr(array, "get") or not hasattr(array, "dtype"):
        raise ArgumentError(
            f"expected a NumPy or CuPy array, not {type(array).__name__}; collectives on tensors are in dtrain.distributed"
        )
    from dtrain.backend.device import move, resolve

    return move(array, resolve("cpu"))      # on the current stream, and waits for it


def _to_device(array: Any, host: np.ndarray) -> None:
    from dtrain.backend import cuda
    from dtrain.backend.device import device_of, move

    where = device_of(array)
    with cuda.on(where.index):
        array[...] = move(host, where)
        cuda.synchronize(where)     # this may be the communication thread: the caller's streams do not know of its own
