"""Order and selection: sort, argsort, topk, nonzero."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import IndexRangeError
from dtrain.ops._shape import norm_dim
from dtrain.ops.gather import gather
from dtrain.ops.index import type_of


class Nonzero(Op):
    """The indices of nonzero elements, (count, ndim), int64."""

    differentiable = False

    def forward(self, xp: Any, x: Any) -> Any:
        found = xp.nonzero(x if x.ndim else x.reshape(1))
        out = xp.stack(found, axis=1).astype("int64") if found else xp.zeros((0, 0), "int64")
        return out if x.ndim else out[:, :0]


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Indices of nonzero elements: (count, ndim), or a tuple of 1-D tensors, one a dim."""
    found = apply(Nonzero(), input)
    return tuple(found.unbind(1)) if as_tuple else found  # type: ignore[attr-defined]


class Argsort(Op):
    """The positions that sort along a dim; int64."""

    differentiable = False

    def __init__(self, axis: int, descending: bool) -> None:
        self.axis, self.descending = axis, descending

    def forward(self, xp: Any, x: Any) -> Any:
        if not self.descending:
            return _stable(xp, x, self.axis).astype("int64")
        # Sorting the reversed array and reversing keeps equal elements in their order.
        order = xp.flip(_stable(xp, xp.flip(x, self.axis), self.axis), self.axis)
        return (x.shape[self.axis] - 1 - order).astype("int64")


def _stable(xp: Any, x: Any, axis: int) -> Any:
    return xp.argsort(x, axis=axis, kind="stable")


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along ``dim``; int64. Equal elements keep their order."""
    if not input.ndim:
        return Tensor._wrap(type_of(input).zeros((), "int64"))
    return apply(Argsort(norm_dim(dim, input.ndim), descending), input)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """``(values, indices)`` sorted along ``dim``."""
    from dtrain.ops.reduce import MaxMin

    indices = argsort(input, dim, descending, stable)
    return MaxMin(gather(input, dim, indices), indices)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``(values, indices)`` of the ``k`` largest (or smallest) elements along ``dim``."""
    from dtrain.ops.reduce import MaxMin
    from dtrain.ops.shape import narrow

    dim = norm_dim(dim, input.ndim)
    size = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= size:
        raise IndexRangeError(f"topk: k is {k}, outside the range 0 to {size} of dim {dim}")
    indices = narrow(argsort(input, dim, largest), dim, 0, k).contiguous() if input.ndim else argsort(input)  # type: ignore[attr-defined]
    return MaxMin(gather(input, dim, indices), indices)
