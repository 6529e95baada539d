"""Small helpers on shapes and dims that several families share."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from dtrain.backend.state import local
from dtrain.errors import DtypeError, IndexRangeError, ShapeError


def unbroadcast(xp: Any, g: Any, shape: Sequence[int]) -> Any:
    """Sum a gradient over the axes along which an input of ``shape`` was broadcast."""
    if g.shape == shape:
        return g
    lead = len(g.shape) - len(shape)
    if lead < 0:  # an assigned value may have more dims than its target, all of size 1
        return xp.reshape(unbroadcast(xp, g, tuple(shape[-lead:])), tuple(shape))
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)
    return xp.reshape(xp.sum(g, axis=axes), shape) if axes else xp.reshape(g, shape)


def norm_dim(dim: int, ndim: int, what: str = "dim") -> int:
    """A dimension counted from the front. Raises IndexRangeError naming the value and the range."""
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise IndexRangeError(f"{what} {dim} is out of range for a tensor with {ndim} dimensions; expected {-span} to {span - 1}")
    return dim % span


def norm_dims(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """Dimensions as a tuple counted from the front; None (or empty) means all and stays None."""
    if dim is None:
        return None
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    out = tuple(norm_dim(int(d), ndim) for d in dims)
    if len(set(out)) != len(out):
        raise ShapeError(f"dim {dims} names one dimension twice")
    return (out or None) if ndim else None


def shape_args(args: tuple) -> tuple[int, ...]:
    """``f(2, 3)``, ``f((2, 3))`` and ``f([2, 3])`` alike, as a tuple."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(n if isinstance(n, int) else n.__index__() for n in args)


def expand_reduced(xp: Any, g: Any, shape: Sequence[int], axis: tuple[int, ...] | None, keepdims: bool) -> Any:
    """A reduction's gradient, broadcast back to the input's shape."""
    if not keepdims and axis is not None:
        kept = [1 if i in axis else n for i, n in enumerate(shape)]
        g = xp.reshape(g, tuple(kept))
    return xp.broadcast_to(g, tuple(shape))


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that ``shapes`` broadcast to, of their own sizes (a tracer's sizes are more than numbers). ValueError if none."""
    np.broadcast_shapes(*[tuple(s) for s in shapes])
    ndim = max(map(len, shapes), default=0)
    padded = [(1,) * (ndim - len(s)) + tuple(s) for s in shapes]
    return tuple([next((n for n in sizes if n != 1), 1) for sizes in zip(*padded)])


def one_dtype(name: str, *tensors: Any) -> None:
    """Raise DtypeError unless the tensors share a dtype. Inside autocast, which will cast them, any pass."""
    first = tensors[0]
    if any(x._array.dtype != first._array.dtype for x in tensors) and local.autocast is None:
        raise DtypeError(f"{name} expects operands of one dtype, got {' and '.join(str(x.dtype) for x in tensors)}; convert with .to(), or use autocast")
