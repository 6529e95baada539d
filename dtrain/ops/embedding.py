"""Lookups in a table of vectors."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.backend.scatter import sum_rows
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError, UnsupportedError
from dtrain.ops.index import check_range


class Embedding(Op):
    """y[i] = weight[index[i]]. ``shares`` (index's shape and 1, or None) scale each row's gradient."""

    half_as_float = False

    def __init__(self, shares: Any = None) -> None:
        self.shares = shares

    def forward(self, xp: Any, weight: Any, index: Any) -> Any:
        self.saved = (index,)
        self.count = weight.shape[0]
        return xp.take(weight, index, axis=0)

    def backward(self, xp: Any, g: Any) -> tuple:
        (index,) = self.unpack(xp)
        return xp.run(EmbeddingGrad(self.count, self.shares), g, index), None


class EmbeddingGrad(Op):
    """A table of ``count`` rows with x[i] * shares[i] added at index[i]: the gradient of Embedding."""

    half_as_float = False

    def __init__(self, count: int, shares: Any) -> None:
        self.count, self.shares = count, shares

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.saved = (index,)
        dtype = x.dtype
        x = x.astype("float32") if dtype.itemsize == 2 else x
        if self.shares is not None:
            x = x * self.shares
        width = x.shape[-1]
        return sum_rows(xp, self.count, index.reshape(-1), x.reshape(index.size, width)).astype(dtype, copy=False)

    def backward(self, xp: Any, g: Any) -> tuple:
        (index,) = self.unpack(xp)
        y = xp.run(Embedding(), g, index)
        if self.shares is not None:
            y = xp.cast(y * (Tensor._wrap(self.shares) if xp.builds_graph else self.shares), g.dtype)
        return y, None


def _shares(xp: Any, index: Any, count: int, dtype: Any, padding_idx: int | None, by_frequency: bool) -> Any:
    """What each looked-up row's gradient is scaled with: 0 for padding, 1 / how often its index occurs; None for 1."""
    if padding_idx is None and not by_frequency:
        return None
    dtype = "float32" if dtype.itemsize == 2 else dtype
    shares = xp.ones(index.shape, dtype) if padding_idx is None else (index != padding_idx).astype(dtype)
    if by_frequency:
        times = xp.zeros(count, dtype)
        xp.scatter_add(times, index.reshape(-1), xp.ones(index.size, dtype))
        shares = shares / times[index]
    return shares[..., None]


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` (count, width) at the integers ``input`` (any shape): shape (*input, width).

    Rows at ``padding_idx`` get no gradient; ``max_norm`` scales longer rows down in place first. Raises IndexRangeError for
    an index outside 0 to count - 1.
    """
    if weight.ndim != 2:
        raise ShapeError(f"embedding expects a weight of (count, width), got shape {tuple(weight.shape)}")
    if input._array.dtype.kind not in "iu":
        raise DtypeError(f"embedding expects integer indices, got {input.dtype}; convert with .long()")
    if sparse:
        raise UnsupportedError("embedding: gradients are always dense; leave out sparse=True")
    count = weight.shape[0]
    xp = namespace.of(weight._array)
    index = input._array
    check_range(xp, index, count, f"embedding index (weight of {count} rows)")
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise ArgumentError(f"embedding: padding_idx is {padding_idx}; expected {-count} to {count - 1}")
        padding_idx %= count
    if max_norm is not None:
        _shorten(xp, weight, index, max_norm, norm_type)
    return apply(Embedding(_shares(xp, index, count, weight._array.dtype, padding_idx, scale_grad_by_freq)), weight, input)


def _shorten(xp: Any, weight: Tensor, index: Any, longest: float, norm_type: float) -> None:
    """Scale the rows at ``index`` to a norm of at most ``longest``, in place and outside the graph."""
    used = xp.unique(index)
    rows = weight._array[used]
    norms = xp.sum(xp.abs(rows) ** norm_type, axis=1, keepdims=True) ** (1 / norm_type)
    weight._array[used] = rows * xp.where(norms > longest, longest / (norms + 1e-7), 1)
    weight._vc[0] += 1


class OneHot(Op):
    """int64 zeros with 1 at each index, along a new last dim."""

    differentiable = False

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def forward(self, xp: Any, index: Any) -> Any:
        return (xp.expand_dims(index, -1) == xp.arange(self.classes)).astype("int64")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each index of ``tensor``, 0 elsewhere, along a new last dim of ``num_classes`` (-1: the largest index and 1); int64."""
    if tensor._array.dtype.kind not in "iu":
        raise DtypeError(f"one_hot expects integers, got {tensor.dtype}; convert with .long()")
    if num_classes == -1:
        if not tensor.numel():
            raise ArgumentError("one_hot cannot tell the number of classes from no indices; pass num_classes")
        num_classes = int(tensor._array.max()) + 1
    if num_classes < 1:
        raise IndexRangeError(f"one_hot: num_classes is {num_classes}; expected at least 1, and indices of 0 or more")
    check_range(namespace.of(tensor._array), tensor._array, num_classes, "one_hot index")
    return apply(OneHot(num_classes), tensor)
