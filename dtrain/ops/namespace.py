"""The third array namespace: NumPy's names over Tensor operations, for backwards that are themselves differentiated."""

from __future__ import annotations

from typing import Any

from dtrain.autograd import engine
from dtrain.autograd.dispatch import Cast, apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.ops import creation, elementwise, join, matmul, reduce, shape, unary


class TensorNamespace:
    """The same FUNCTIONS as an array namespace, on Tensors."""

    name = "tensor"
    builds_graph = True
    is_cuda = False

    add, subtract, multiply, true_divide = map(staticmethod, (elementwise.add, elementwise.sub, elementwise.mul, elementwise.div))
    power, maximum, minimum, where = map(staticmethod, (elementwise.pow, elementwise.maximum, elementwise.minimum, elementwise.where))
    floor_divide = staticmethod(elementwise.floor_divide)
    negative, abs, sign, sqrt, square = map(staticmethod, (unary.neg, unary.abs, unary.sign, unary.sqrt, unary.square))
    exp, expm1, log, log1p = map(staticmethod, (unary.exp, unary.expm1, unary.log, unary.log1p))
    sin, cos, tan, sinh, cosh, tanh = map(staticmethod, (unary.sin, unary.cos, unary.tan, unary.sinh, unary.cosh, unary.tanh))
    arcsin, arccos, arctan = map(staticmethod, (unary.asin, unary.acos, unary.atan))
    clip, matmul, reshape = map(staticmethod, (unary.clamp, matmul.matmul, shape.reshape))
    swapaxes, moveaxis, expand_dims = map(staticmethod, (shape.transpose, shape.movedim, shape.unsqueeze))
    broadcast_to, tril, triu, flip = map(staticmethod, (shape.broadcast_to, shape.tril, shape.triu, shape.flip))
    zeros_like, ones_like = map(staticmethod, (creation.zeros_like, creation.ones_like))

    @staticmethod
    def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reduce.sum(x, axis, keepdims)

    @staticmethod
    def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reduce.mean(x, axis, keepdims)

    @staticmethod
    def cumsum(x: Tensor, axis: int) -> Tensor:
        return reduce.cumsum(x, axis)

    @staticmethod
    def transpose(x: Tensor, axes: Any = None) -> Tensor:
        return shape.permute(x, tuple(axes) if axes is not None else tuple(range(x.ndim))[::-1])

    @staticmethod
    def squeeze(x: Tensor, axis: Any = None) -> Tensor:
        return shape.squeeze(x, axis)

    @staticmethod
    def concatenate(xs: Any, axis: int = 0) -> Tensor:
        return join.cat(xs, axis)

    @staticmethod
    def stack(xs: Any, axis: int = 0) -> Tensor:
        return join.stack(xs, axis)

    @staticmethod
    def take_along_axis(x: Tensor, indices: Tensor, axis: int) -> Tensor:
        from dtrain.ops.gather import gather

        return gather(x, axis, indices)

    @staticmethod
    def cast(x: Tensor, dtype: Any) -> Tensor:
        kind = dtype.np if hasattr(dtype, "np") else dtype
        return x if x._array.dtype == kind else apply(Cast(kind), x)

    @staticmethod
    def constant(x: Any) -> Any:
        return x.detach() if isinstance(x, Tensor) else x

    @staticmethod
    def run(op: Op, *inputs: Any) -> Any:
        return apply(op, *inputs)

    @staticmethod
    def with_history(op: Op) -> tuple:
        """The saved values as Tensors: inputs with the history they had, outputs as outputs of ``op``."""
        return tuple(_attach(op, value, mark) for value, mark in zip(op.saved, op.marks or [None] * len(op.saved)))


def _attach(op: Op, value: Any, mark: int | None) -> Any:
    if not hasattr(value, "shape"):
        return value
    if mark is None:
        return Tensor._wrap(value)
    if mark < 0:
        return _linked(value, op, -1 - mark)
    edge = op.edges[mark]
    if edge is None:
        return Tensor._wrap(value)
    if isinstance(edge, Op):
        return _linked(value, edge, op.ports[mark] if op.ports else 0)
    return edge


def _linked(value: Any, node: Op, port: int) -> Tensor:
    out = Tensor._wrap(value)
    out._node, out._port, out._rg = node, port, True
    return out


engine.tensor_namespace = TensorNamespace()
