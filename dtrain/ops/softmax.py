"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any
from warnings import warn

import numpy as np

from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.blocks import row_blocks, row_dot, row_max, row_sum
from dtrain.ops._pointwise import activate
from dtrain.ops._shape import norm_dim


class Softmax(Op):
    """y = exp(x) / sum(exp(x)) along an axis; a row of -inf gives NaN."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, xp: Any, x: Any) -> Any:
        y = by_rows(xp, _softmax, self.axis, x)
        self.saved = (y,)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        (y,) = self.unpack(xp)
        if xp.builds_graph:
            return (y * (g - xp.sum(g * y, axis=self.axis, keepdims=True)),)
        return (by_rows(xp, _softmax_slope, self.axis, g, y),)


class LogSoftmax(Softmax):
    """y = x - log(sum(exp(x))) along an axis."""

    def forward(self, xp: Any, x: Any) -> Any:
        y = by_rows(xp, _log_softmax, self.axis, x)
        self.saved = (y,)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        (y,) = self.unpack(xp)
        if xp.builds_graph:
            return (g - xp.exp(y) * xp.sum(g, axis=self.axis, keepdims=True),)
        return (by_rows(xp, _log_softmax_slope, self.axis, g, y),)


def by_rows(xp: Any, f: Any, axis: int, *arrays: Any) -> Any:
    """``f(xp, axis, out, *arrays)`` on pieces of rows that fit the cache, where the axis is not the first."""
    out = xp.empty_like(arrays[-1], order="C") if xp.name != "meta" else xp.empty_like(arrays[-1])
    if out.size == 0:
        return out
    with np.errstate(invalid="ignore", divide="ignore"):
        if out.ndim < 2 or axis == 0:
            f(xp, axis, out, *arrays)
        else:
            for rows in row_blocks(xp, out.shape):
                f(xp, axis, out[rows], *[a[rows] for a in arrays])
    return out


def _softmax(xp: Any, axis: int, out: Any, x: Any) -> None:
    xp.subtract(x, row_max(xp, x, axis), out=out)
    xp.exp(out, out=out)
    out *= 1 / row_sum(xp, out, axis)


def _softmax_slope(xp: Any, axis: int, out: Any, g: Any, y: Any) -> None:
    xp.subtract(g, row_dot(xp, g, y, axis), out=out)
    out *= y


def _log_softmax(xp: Any, axis: int, out: Any, x: Any) -> None:
    xp.subtract(x, row_max(xp, x, axis), out=out)
    out -= xp.log(row_sum(xp, xp.exp(out), axis))


def _log_softmax_slope(xp: Any, axis: int, out: Any, g: Any, y: Any) -> None:
    xp.exp(y, out=out)
    out *= row_sum(xp, g, axis)
    xp.subtract(g, out, out=out)


def _dim(name: str, input: Tensor, dim: int | None) -> int:
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warn(f"{name} without dim chose dim {dim}; pass dim= to say which", stacklevel=3)
    return norm_dim(dim, input.ndim)


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along ``dim``, in ``dtype`` if given."""
    input = input if dtype is None else input.to(dtype)  # type: ignore[attr-defined]
    axis = _dim("softmax", input, dim)
    return _on_vectors(Softmax, input, axis)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """The logarithm of softmax along ``dim``, without overflow."""
    input = input if dtype is None else input.to(dtype)  # type: ignore[attr-defined]
    axis = _dim("log_softmax", input, dim)
    return _on_vectors(LogSoftmax, input, axis)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """softmax of minus input."""
    return softmax(-input, _dim("softmin", input, dim), dtype)


def _on_vectors(kind: type, input: Tensor, axis: int) -> Tensor:
    if input.ndim == 0:
        return activate(kind(0), input.reshape(1)).reshape(())  # type: ignore[attr-defined]
    return activate(kind(axis), input)
