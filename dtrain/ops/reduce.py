"""Reductions: sums, means, extremes, norms, counts."""

from __future__ import annotations

import builtins
from collections import namedtuple
from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops import elementwise, unary
from dtrain.ops._shape import expand_reduced, norm_dim, norm_dims

MaxMin = namedtuple("MaxMin", "values indices")


class Reduce(Op):
    """Base: an axis tuple (None is all) and whether reduced dims stay as 1."""

    def __init__(self, axis: tuple[int, ...] | None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims


def signed(x: Any) -> Any:
    """x, unsigned integers as int64: array libraries would sum them to uint64."""
    return x.astype("int64") if x.dtype.kind == "u" else x


class Sum(Reduce):
    """The sum over dims; bool and integers sum to int64."""

    def forward(self, xp: Any, x: Any) -> Any:
        self.shape = x.shape
        return xp.sum(signed(x), axis=self.axis, keepdims=self.keepdims)

    def backward(self, xp: Any, g: Any) -> Any:
        return (expand_reduced(xp, g, self.shape, self.axis, self.keepdims),)


class Mean(Reduce):
    """The mean over dims."""

    def forward(self, xp: Any, x: Any) -> Any:
        self.shape = x.shape
        y = xp.mean(x, axis=self.axis, keepdims=self.keepdims)
        self.count = x.size / builtins.max(y.size, 1)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        return (expand_reduced(xp, g / self.count, self.shape, self.axis, self.keepdims),)


class Var(Reduce):
    """The variance over dims, divided by count - correction."""

    def __init__(self, axis: tuple[int, ...] | None, keepdims: bool, correction: float) -> None:
        super().__init__(axis, keepdims)
        self.correction = correction

    def forward(self, xp: Any, x: Any) -> Any:
        self.saved = (x,)
        mean = xp.mean(x, axis=self.axis, keepdims=True)
        centred = x - mean
        total = xp.sum(xp.multiply(centred, centred), axis=self.axis, keepdims=self.keepdims)
        self.divisor = builtins.max(x.size / builtins.max(mean.size, 1) - self.correction, 0)
        with _quiet():
            return xp.true_divide(total, x.dtype.type(self.divisor))

    def backward(self, xp: Any, g: Any) -> Any:
        (x,) = self.unpack(xp)
        g = expand_reduced(xp, g, x.shape, self.axis, self.keepdims)
        return (g * (x - xp.mean(x, axis=self.axis, keepdims=True)) * (2 / self.divisor if self.divisor else float("nan")),)


class Std(Var):
    """The root of the variance; its gradient is 0 where it is 0."""

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.asarray(xp.sqrt(super().forward(xp, x)))
        self.saved = (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        x, y = self.unpack(xp)
        zero = xp.constant(y) == 0
        share = xp.where(zero, xp.zeros_like(y), g / xp.where(zero, xp.ones_like(y), y))
        share = expand_reduced(xp, share, x.shape, self.axis, self.keepdims)
        return (share * (x - xp.mean(x, axis=self.axis, keepdims=True)) * (1 / self.divisor if self.divisor else float("nan")),)


def _quiet() -> Any:
    import numpy as np

    return np.errstate(divide="ignore", invalid="ignore")


class Extremum(Reduce):
    """amax/amin over dims: equal extremes share the gradient."""

    def __init__(self, function: str, axis: tuple[int, ...] | None, keepdims: bool) -> None:
        super().__init__(axis, keepdims)
        self.function = function

    def forward(self, xp: Any, x: Any) -> Any:
        y = getattr(xp, self.function)(x, axis=self.axis, keepdims=self.keepdims)
        y = xp.asarray(y)
        self.saved = (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        x, y = self.unpack(xp)
        hit = xp.cast(xp.constant(x) == expand_reduced(xp, xp.constant(y), x.shape, self.axis, self.keepdims), g.dtype)
        share = hit / xp.sum(hit, axis=self.axis, keepdims=True)
        return (expand_reduced(xp, g, x.shape, self.axis, self.keepdims) * share,)


class Prod(Reduce):
    """The product over dims; exact for zeros, through products of the elements before and after."""

    def forward(self, xp: Any, x: Any) -> Any:
        self.saved = (x,)
        return xp.prod(signed(x), axis=self.axis, keepdims=self.keepdims)

    def backward(self, xp: Any, g: Any) -> Any:
        (x,) = self.unpack(xp)
        g = expand_reduced(xp, g, x.shape, self.axis, self.keepdims)
        axis = 0 if self.axis is None else self.axis[0]
        flat = xp.reshape(x, (-1,)) if self.axis is None else x
        return (g * xp.reshape(_others(xp, flat, axis), x.shape),)


def _others(xp: Any, x: Any, axis: int) -> Any:
    """Along ``axis``, the product of all elements but each one itself."""
    n = x.shape[axis]
    x = xp.moveaxis(x, axis, 0)
    before = [xp.ones_like(x[0])] if n else []
    after = list(before)
    for i in range(n - 1):
        before.append(before[-1] * x[i])
        after.append(after[-1] * x[n - 1 - i])
    if not n:
        return xp.moveaxis(x, 0, axis)
    return xp.moveaxis(xp.stack([b * a for b, a in zip(before, reversed(after))], axis=0), 0, axis)


class ArgExtreme(Op):
    """The position of the largest or smallest element."""

    differentiable = False

    def __init__(self, function: str, axis: int | None, keepdims: bool) -> None:
        self.function, self.axis, self.keepdims = function, axis, keepdims

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.asarray(getattr(xp, self.function)(x, axis=self.axis))
        if self.keepdims:
            y = xp.reshape(y, (1,) * x.ndim) if self.axis is None else xp.expand_dims(y, self.axis)
        return y.astype("int64")


class AnyAll(Reduce):
    """Whether any or all elements are nonzero."""

    differentiable = False

    def __init__(self, function: str, axis: tuple[int, ...] | None, keepdims: bool) -> None:
        super().__init__(axis, keepdims)
        self.function = function

    def forward(self, xp: Any, x: Any) -> Any:
        return getattr(xp, self.function)(x, axis=self.axis, keepdims=self.keepdims)


class Cumsum(Op):
    """The running sum along a dim."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, xp: Any, x: Any) -> Any:
        return xp.cumsum(signed(x), axis=self.axis)

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.flip(xp.cumsum(xp.flip(g, self.axis), axis=self.axis), self.axis),)


class LogSumExp(Reduce):
    """log(sum(exp(x))) over dims, without overflow."""

    floats = True

    def forward(self, xp: Any, x: Any) -> Any:
        top = xp.max(x, axis=self.axis, keepdims=True) if x.size else xp.sum(x, axis=self.axis, keepdims=True)
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
        y = xp.log(xp.sum(xp.exp(x - top), axis=self.axis, keepdims=True)) + top
        y = xp.asarray(y if self.keepdims else xp.squeeze(y, axis=self.axis if self.axis is not None else None))
        self.saved = (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        x, y = self.unpack(xp)
        full = expand_reduced(xp, y, x.shape, self.axis, self.keepdims)
        return (expand_reduced(xp, g, x.shape, self.axis, self.keepdims) * xp.exp(x - full),)


def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim`` (an int, a tuple, or None for all)."""
    input = input if dtype is None else input.to(dtype)
    return apply(Sum(norm_dims(dim, input.ndim), keepdim), input)


def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim``. Raises DtypeError for integers."""
    input = input if dtype is None else input.to(dtype)
    if not (input.dtype.is_floating_point or input.dtype.is_complex):
        raise DtypeError(f"mean needs a floating point tensor, got {input.dtype}; use .float().mean() or pass dtype=")
    return apply(Mean(norm_dims(dim, input.ndim), keepdim), input)


def var(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Tensor:
    """The variance over ``dim``, unbiased (correction 1) by default."""
    return _spread(Var, input, dim, unbiased, keepdim, correction)


def _spread(kind: type[Var], input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    if not (input.dtype.is_floating_point or input.dtype.is_complex):
        raise DtypeError(f"var and std need a floating point tensor, got {input.dtype}; use .float() first")
    return apply(kind(norm_dims(dim, input.ndim), keepdim, correction), input)


def std(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Tensor:
    """The standard deviation over ``dim``, unbiased (correction 1) by default."""
    return _spread(Std, input, dim, unbiased, keepdim, correction)


def var_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> tuple:
    """``(var, mean)`` over ``dim``."""
    axis = None if isinstance(dim, bool) else dim
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, axis, keepdim)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over one dim, or of all elements."""
    input = input if dtype is None else input.to(dtype)
    axis = None if dim is None else (norm_dim(dim, input.ndim),)
    return apply(Prod(axis if input.ndim else None, keepdim), input)


def _not_empty(input: Tensor, name: str, axis: Any) -> None:
    dims = range(input.ndim) if axis is None else axis
    if builtins.any(input.shape[d] == 0 for d in dims):
        raise ShapeError(f"{name}() of a tensor of shape {tuple(input.shape)} over an empty dim has no value")


def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The maximum over ``dim``; equal maxima share the gradient."""
    axis = norm_dims(dim, input.ndim)
    _not_empty(input, "amax", axis)
    return apply(Extremum("max", axis, keepdim), input)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The minimum over ``dim``; equal minima share the gradient."""
    axis = norm_dims(dim, input.ndim)
    _not_empty(input, "amin", axis)
    return apply(Extremum("min", axis, keepdim), input)


def _with_indices(input: Tensor, function: str, dim: int, keepdim: bool) -> MaxMin:
    from dtrain.ops.gather import gather

    dim = norm_dim(dim, input.ndim)
    if input.ndim == 0:
        return MaxMin(input.clone(), apply(ArgExtreme(function, None, False), input))
    _not_empty(input, function[3:], (dim,))
    indices = apply(ArgExtreme(function, dim, True), input)
    values = gather(input, dim, indices)
    return MaxMin(values, indices) if keepdim else MaxMin(values.squeeze(dim), indices.squeeze(dim))


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The maximum of all elements; with ``dim``, ``(values, indices)``; with a tensor, the elementwise maximum."""
    if isinstance(dim, Tensor):
        return elementwise.maximum(input, dim)
    return amax(input) if dim is None else _with_indices(input, "argmax", dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The minimum of all elements; with ``dim``, ``(values, indices)``; with a tensor, the elementwise minimum."""
    if isinstance(dim, Tensor):
        return elementwise.minimum(input, dim)
    return amin(input) if dim is None else _with_indices(input, "argmin", dim, keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) maximum, over all elements or along ``dim``; int64."""
    axis = None if dim is None else norm_dim(dim, input.ndim)
    _not_empty(input, "argmax", None if axis is None else (axis,))
    return apply(ArgExtreme("argmax", axis if input.ndim else None, keepdim), input)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) minimum, over all elements or along ``dim``; int64."""
    axis = None if dim is None else norm_dim(dim, input.ndim)
    _not_empty(input, "argmin", None if axis is None else (axis,))
    return apply(ArgExtreme("argmin", axis if input.ndim else None, keepdim), input)


def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return apply(AnyAll("any", norm_dims(dim, input.ndim), keepdim), input)


def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return apply(AnyAll("all", norm_dims(dim, input.ndim), keepdim), input)


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are nonzero; int64."""
    return sum(elementwise.ne(input, 0), dim)


def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running sum along ``dim``."""
    input = input if dtype is None else input.to(dtype)
    if not input.ndim:
        return input.clone()
    return apply(Cumsum(norm_dim(dim, input.ndim)), input)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, without overflow."""
    return apply(LogSumExp(norm_dims(dim, input.ndim), keepdim), input)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm of the elements over ``dim``; "fro" and None are 2. Raises ArgumentError for "nuc"."""
    if p == "nuc":
        raise ArgumentError("norm(p='nuc') needs a singular value decomposition; expected a number, 'fro' or None")
    input = input if dtype is None else input.to(dtype)
    order = 2.0 if p in (None, "fro") else float(p)
    if order == 2.0:
        return apply(Norm2(norm_dims(dim, input.ndim), keepdim), input)
    size = unary.abs(input)
    if order in (float("inf"), float("-inf")):
        return (amax if order > 0 else amin)(size, () if dim is None else dim, keepdim)
    if order == 0:
        return sum(elementwise.ne(input, 0).to(input.dtype), dim, keepdim)
    if order == 1:
        return sum(size, dim, keepdim)
    return elementwise.pow(sum(elementwise.pow(size, order), dim, keepdim), 1 / order)


class Norm2(Reduce):
    """The Euclidean norm over dims; its gradient at 0 is 0."""

    floats = True

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.asarray(xp.sqrt(xp.sum(xp.multiply(x, x), axis=self.axis, keepdims=self.keepdims)))
        self.saved = (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        x, y = self.unpack(xp)
        zero = xp.constant(y) == 0
        share = xp.where(zero, xp.zeros_like(y), g / xp.where(zero, xp.ones_like(y), y))
        return (x * expand_reduced(xp, share, x.shape, self.axis, self.keepdims),)
