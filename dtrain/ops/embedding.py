"""Embedding: rows of a table by index, with a dense gradient; and one-hot codes."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, UnsupportedError
from dtrain.ops.index import check_range


class Embedding(Op):
    """y = weight[index]."""

    half_as_float = False

    def __init__(self, padding: int | None) -> None:
        self.padding = padding

    def forward(self, xp: Any, weight: Any, index: Any) -> Any:
        check_range(xp, index, weight.shape[0], "embedding: index")
        self.rows = weight.shape[0]
        self.saved = (index,)
        return xp.take(weight, index, axis=0)

    def backward(self, xp: Any, g: Any) -> tuple:
        (index,) = self.unpack(xp)
        return xp.run(EmbeddingGradient(self.rows, self.padding), g, index), None


class EmbeddingGradient(Op):
    """Zeros of the table's shape with the rows of g added at index; none at the padding row."""

    half_as_float = False

    def __init__(self, rows: int, padding: int | None) -> None:
        self.rows, self.padding = rows, padding

    def forward(self, xp: Any, g: Any, index: Any) -> Any:
        self.saved = (index,)
        width = g.shape[-1]
        out = xp.zeros((self.rows, width), g.dtype)
        xp.scatter_add(out, (index.reshape(-1),), g.reshape(-1, width))
        if self.padding is not None:
            out[self.padding] = 0
        return out

    def backward(self, xp: Any, gg: Any) -> tuple:
        (index,) = self.unpack(xp)
        taken = xp.run(Embedding(None), gg, index)
        if self.padding is not None:
            keep = xp.expand_dims(xp.cast(xp.constant(index) != self.padding, taken.dtype), -1)
            taken = taken * keep
        return taken, None


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` (num, dim) at the integers ``input`` (any shape): (*input.shape, dim).

    ``padding_idx`` names a row that gets no gradient. Raises IndexRangeError naming a value outside [0, num), DtypeError
    for an input that is not integer, UnsupportedError for max_norm, scale_grad_by_freq and sparse.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise UnsupportedError("embedding: max_norm, scale_grad_by_freq and sparse are not supported; leave them at their defaults")
    if input._array.dtype.kind not in "iu":
        raise DtypeError(f"embedding expects integer indices, got {input.dtype}; convert with .long()")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise IndexRangeError(f"embedding: padding_idx {padding_idx} is outside the range {-rows} to {rows - 1}")
    return apply(Embedding(None if padding_idx is None else padding_idx % rows), weight, input)


class OneHot(Op):
    """1 at the index along a new last dim, 0 elsewhere; int64."""

    differentiable = False

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def forward(self, xp: Any, index: Any) -> Any:
        return (xp.expand_dims(index, -1) == xp.arange(self.classes)).astype("int64")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 codes of shape (*tensor.shape, num_classes); by default as many classes as the largest index needs."""
    if tensor._array.dtype.kind not in "iu":
        raise DtypeError(f"one_hot expects integer classes, got {tensor.dtype}")
    if num_classes == -1:
        if not tensor.numel():
            raise ArgumentError("one_hot cannot infer num_classes from an empty tensor; pass it")
        num_classes = int(tensor._array.max()) + 1
    check_range(namespace.of(tensor._array), tensor._array, num_classes, "one_hot: class")
    return apply(OneHot(num_classes), tensor)


__all__ = ["embedding", "one_hot"]
