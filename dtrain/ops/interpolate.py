"""Resizing of the last dims. Linear and cubic interpolation are a small matrix for each dim, one after the other."""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._windows import per_dim
from dtrain.ops.index import getitem
from dtrain.ops.matmul import matmul
from dtrain.ops.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from dtrain.ops.shape import expand, reshape, transpose, unsqueeze

_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_MODES = ("nearest", "nearest-exact", "area", *_DIMS)


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, L), (N, C, H, W) or (N, C, D, H, W) resized to ``size``, or by ``scale_factor``.

    mode: "nearest", "nearest-exact", "area", "linear" (3 dims), "bilinear", "bicubic" (4) or "trilinear" (5).
    ``align_corners`` maps first to first and last to last; otherwise pixels are areas. ``antialias`` widens the filter of
    bilinear and bicubic when shrinking.
    """
    dims = input.ndim - 2
    _check(input, mode, align_corners, antialias, dims)
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give either size or scale_factor, not both and not neither")
    inner = tuple(input.shape[2:])
    factors: tuple = (None,) * dims
    if size is not None:
        out = per_dim("interpolate", "size", size, dims)
    else:
        given = (scale_factor,) * dims if isinstance(scale_factor, (int, float)) else tuple(scale_factor)
        if len(given) != dims:
            raise ArgumentError(f"interpolate: scale_factor is {scale_factor}; expected one number or {dims}")
        out = tuple(math.floor(n * f) for n, f in zip(inner, given))
        factors = factors if recompute_scale_factor else given
    if min(*inner, *out) < 1:
        raise ShapeError(f"interpolate: sizes must be at least 1; got {inner} to {out}")
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[dims - 1](input, out)
    for dim, (n, o, f) in enumerate(zip(inner, out, factors)):
        ratio = n / o if f is None else 1 / f
        if mode.startswith("nearest"):
            input = _nearest(input, dim + 2, n, o, ratio, 0.5 if mode == "nearest-exact" else 0.0)
        elif n != o or f is not None or antialias:
            input = _weigh(input, dim + 2, _matrix(mode, n, o, ratio, bool(align_corners), antialias))
    return input


def _check(input: Tensor, mode: str, align_corners: bool | None, antialias: bool, dims: int) -> None:
    if mode not in _MODES:
        raise ArgumentError(f"interpolate: mode is {mode!r}; expected one of {', '.join(map(repr, _MODES))}")
    if not 1 <= dims <= 3 or _DIMS.get(mode, dims) != dims:
        wanted = f"{_DIMS[mode] + 2} dims" if mode in _DIMS else "3 to 5 dims"
        raise ShapeError(f"interpolate with mode {mode!r} expects an input of {wanted} (batch, channels, ...), got shape {tuple(input.shape)}")
    if align_corners is not None and mode not in _DIMS:
        raise ArgumentError(f"interpolate: align_corners belongs to {', '.join(_DIMS)}, not to mode {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ArgumentError(f"interpolate: antialias belongs to bilinear and bicubic, not to mode {mode!r}")


def _nearest(x: Tensor, dim: int, n: int, out: int, ratio: float, shift: float) -> Tensor:
    if out % n == 0 and math.isclose(ratio, n / out):
        times = out // n
        if times == 1:
            return x
        grown = unsqueeze(x, dim + 1)
        grown = expand(grown, (*x.shape[: dim + 1], times, *x.shape[dim + 1 :]))
        return reshape(grown, (*x.shape[:dim], out, *x.shape[dim + 1 :]))
    index = np.minimum(np.floor((np.arange(out) + shift) * np.float32(ratio)).astype(np.int64), n - 1)
    return getitem(x, (slice(None),) * dim + (Tensor._wrap(namespace.of(x._array).asarray(index)),))


def _weigh(x: Tensor, dim: int, matrix: np.ndarray) -> Tensor:
    """x times a matrix (size, new size) along ``dim``."""
    weights = Tensor._wrap(namespace.of(x._array).asarray(matrix.astype(x._array.dtype)))
    if dim == x.ndim - 1:
        return matmul(x, weights)
    return transpose(matmul(transpose(x, dim, -1), weights), dim, -1).contiguous()  # type: ignore[attr-defined]


def _matrix(mode: str, n: int, out: int, ratio: float, align: bool, antialias: bool) -> np.ndarray:
    """The weight (n, out) of each element in each result."""
    cubic = mode == "bicubic"
    if antialias:
        return _wide(_keys(-0.5) if cubic else _tent, 2.0 if cubic else 1.0, n, out, (n - 1) / max(out - 1, 1) if align else ratio)
    if align:
        place = np.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
    else:
        place = (np.arange(out) + 0.5) * ratio - 0.5
        place = place if cubic else np.maximum(place, 0)
    kernel, reach = (_keys(-0.75), 2) if cubic else (_tent, 1)
    first = np.floor(place).astype(np.int64)
    weights = np.zeros((n, out))
    for k in range(1 - reach, reach + 1):
        np.add.at(weights, (np.clip(first + k, 0, n - 1), np.arange(out)), kernel(place - first - k))
    return weights


def _wide(kernel: Callable, reach: float, n: int, out: int, ratio: float) -> np.ndarray:
    """Weights of a kernel that is widened when shrinking, each column's sum 1, cut at the borders."""
    width = max(ratio, 1.0)
    weights = np.zeros((n, out))
    for i in range(out):
        centre = ratio * (i + 0.5)
        start, stop = max(int(centre - reach * width + 0.5), 0), min(int(centre + reach * width + 0.5), n)
        column = kernel((np.arange(start, stop) - centre + 0.5) / width)
        weights[start:stop, i] = column / column.sum()
    return weights


def _tent(d: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(d), 0)


def _keys(a: float) -> Callable:
    """The cubic convolution kernel of parameter ``a`` (Keys, 1981)."""

    def kernel(d: np.ndarray) -> np.ndarray:
        d = np.abs(d)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel
