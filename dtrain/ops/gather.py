"""Gather and scatter: values along a dim at an index tensor of the same number of dims."""

from __future__ import annotations

from typing import Any


from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops._shape import broadcast_shapes, norm_dim
from dtrain.ops.index import Unslice, check_range, check_same_dtype, type_of
from dtrain.ops.shape import expand


class Gather(Op):
    """y[i][j] = x[index[i][j]][j] for dim 0, and so on."""

    half_as_float = False

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.source = x.shape
        self.saved = (index,)
        return x[_position(xp, self.dim, index)] if x.shape != index.shape else xp.take_along_axis(x, index, self.dim)

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(ScatterAddZeros(self.dim, self.source), g, index), None


class ScatterAddZeros(Op):
    """Zeros of a shape with x added at index along dim: the gradient of gather."""

    half_as_float = False

    def __init__(self, dim: int, shape: tuple) -> None:
        self.dim, self.shape = dim, shape

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.saved = (index,)
        out = xp.zeros(self.shape, x.dtype)
        xp.scatter_add(out, _position(xp, self.dim, index), x)
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(Gather(self.dim), g, index), None


class Scatter(Op):
    """x with src written (or added) at index along dim."""

    half_as_float = False

    def __init__(self, dim: int, add: bool) -> None:
        self.dim, self.add = dim, add

    def forward(self, xp: Any, x: Any, index: Any, src: Any) -> Any:
        self.saved = (index,)
        self.trim = tuple(slice(0, n) for n in index.shape)
        self.src_shape = getattr(src, "shape", None)
        out = x.copy()
        position = _position(xp, self.dim, index)
        values = src[self.trim] if self.src_shape is not None else src
        if self.add:
            xp.scatter_add(out, position, values)
        else:
            out[position] = values
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        gx = gs = None
        if self.needs(0):
            gx = g if self.add else xp.run(ScatterZero(self.dim), g, index)
        if self.needs(2):
            gs = xp.run(Gather(self.dim), g, index)
            if tuple(self.src_shape) != tuple(gs.shape):
                gs = xp.run(Unslice(self.trim, self.src_shape), gs)
        return gx, None, gs


class ScatterZero(Op):
    """x with zeros at index along dim."""

    half_as_float = False

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.saved = (index,)
        out = x.copy()
        out[_position(xp, self.dim, index)] = 0
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(ScatterZero(self.dim), g, index), None


def _position(xp: Any, dim: int, index: Any) -> tuple:
    shape = index.shape
    return tuple(
        index if d == dim else xp.reshape(xp.arange(n), tuple(n if k == d else 1 for k in range(len(shape)))) for d, n in enumerate(shape)
    )


def _check_index(input: Tensor, dim: int, index: Tensor, name: str) -> int:
    dim = norm_dim(dim, input.ndim)
    if index._array.dtype.kind not in "iu":
        raise DtypeError(f"{name} expects an integer index, got {index.dtype}")
    if index.ndim != input.ndim:
        raise ShapeError(f"{name} expects an index with {input.ndim} dims like input {tuple(input.shape)}, got shape {tuple(index.shape)}")
    check_range(type_of(index), index._array, input.shape[dim], f"{name} index for dim {dim}")
    return dim


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Values of ``input`` along ``dim`` at ``index`` (same number of dims)."""
    if not input.ndim:
        return input.clone()  # type: ignore[attr-defined]
    dim = _check_index(input, dim, index, "gather")
    return apply(Gather(dim), input, index)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Gather with the other dims broadcast; without ``dim``, from the flattened input."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))  # type: ignore[attr-defined]
    dim = norm_dim(dim, input.ndim)
    shape = broadcast_shapes(*[tuple(1 if d == dim else n for d, n in enumerate(t.shape)) for t in (input, indices)])
    grow = lambda t: expand(t, tuple(t.shape[d] if d == dim else n for d, n in enumerate(shape)))  # noqa: E731
    return gather(grow(input), dim, grow(indices))


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """``input`` with ``src`` (a tensor or number) written at ``index`` along ``dim``."""
    if (src is None) == (value is None):
        raise ArgumentError("scatter expects src (a tensor or number) or value (a number)")
    dim = _check_scatter(input, dim, index, src, "scatter")
    return apply(Scatter(dim, False), input, index, value if src is None else src)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with ``src`` added at ``index`` along ``dim``; repeated indices add up."""
    dim = _check_scatter(input, dim, index, src, "scatter_add")
    return apply(Scatter(dim, True), input, index, src)


def _check_scatter(input: Tensor, dim: int, index: Tensor, src: Any, name: str) -> int:
    dim = _check_index(input, dim, index, name)
    check_same_dtype(name, input, src)
    limits = [n for d, n in enumerate(input.shape) if d != dim]
    fits = all(m <= n for m, n in zip((m for d, m in enumerate(index.shape) if d != dim), limits))
    if isinstance(src, Tensor):
        fits = fits and src.ndim == index.ndim and all(m <= n for m, n in zip(index.shape, src.shape))
    if not fits:
        sources = f" and src {tuple(src.shape)}" if isinstance(src, Tensor) else ""
        raise ShapeError(f"{name}: an index of shape {tuple(index.shape)} does not fit input {tuple(input.shape)} (dim {dim} aside){sources}")
    return dim
