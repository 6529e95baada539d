"""The pooling functions of nn.functional: max_pool, avg_pool and their adaptive forms in one to three dims."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.errors import ShapeError, UnsupportedError
from dtrain.ops import reduce as reductions
from dtrain.ops._windows import per_dim
from dtrain.ops.join import stack
from dtrain.ops.matmul import matmul
from dtrain.ops.pool import avg_pool, max_pool
from dtrain.ops.shape import narrow, transpose


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """The maximum of each window of (N, C, L); with ``return_indices`` also where it is."""
    return max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """The maximum of each window of (N, C, H, W); with ``return_indices`` also where it is, counted in its plane."""
    return max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """The maximum of each window of (N, C, D, H, W); with ``return_indices`` also where it is, counted in its volume."""
    return max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of (N, C, L), padding counted unless ``count_include_pad`` is False."""
    return avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (N, C, H, W), padding counted unless ``count_include_pad`` is False."""
    return avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (N, C, D, H, W), padding counted unless ``count_include_pad`` is False."""
    return avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """(N, C, L) averaged over ``output_size`` nearly equal pieces."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """(N, C, H, W) averaged over ``output_size`` nearly equal pieces; None keeps a dim."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """(N, C, D, H, W) averaged over ``output_size`` nearly equal pieces; None keeps a dim."""
    return _adaptive_avg(3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of ``output_size`` nearly equal pieces of (N, C, L)."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of ``output_size`` nearly equal pieces of (N, C, H, W); None keeps a dim."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of ``output_size`` nearly equal pieces of (N, C, D, H, W); None keeps a dim."""
    return _adaptive_max(3, input, output_size, return_indices)


def _sizes(name: str, dims: int, input: Tensor, output_size: Any) -> tuple[int, ...]:
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name} expects an input of (batch, channels, {dims} dims) or without batch, got shape {tuple(input.shape)}")
    size = tuple(input.shape[-dims:])
    given = (output_size,) * dims if output_size is None or isinstance(output_size, int) else tuple(output_size)
    return per_dim(name, "output_size", tuple(n if o is None else o for n, o in zip(size, given * dims if len(given) == 1 else given)), dims)


def _pieces(n: int, out: int) -> list[tuple[int, int]]:
    """Starts and stops of ``out`` pieces of ``n`` elements; neighbours may overlap by one."""
    return [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def _adaptive_avg(dims: int, input: Tensor, output_size: Any) -> Tensor:
    out = _sizes(f"adaptive_avg_pool{dims}d", dims, input, output_size)
    if all(o == 1 for o in out):
        return reductions.mean(input, tuple(range(-dims, 0)), True)
    for dim, o in enumerate(out):
        axis = input.ndim - dims + dim
        n = input.shape[axis]
        if n != o:
            moved = transpose(input, axis, -1)
            input = transpose(matmul(moved, _averages(input, n, o)), axis, -1)
    return input.contiguous()  # type: ignore[attr-defined]


def _averages(like: Tensor, n: int, out: int) -> Tensor:
    """The matrix (n, out) whose columns average the pieces."""
    weights = np.zeros((n, out))
    for i, (start, stop) in enumerate(_pieces(n, out)):
        weights[start:stop, i] = 1 / (stop - start)
    return Tensor._wrap(namespace.of(like._array).asarray(weights.astype(like._array.dtype)))


def _adaptive_max(dims: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{dims}d"
    out = _sizes(name, dims, input, output_size)
    size = tuple(input.shape[-dims:])
    if all(o and n % o == 0 for n, o in zip(size, out)):
        kernel = tuple(n // o for n, o in zip(size, out))
        return max_pool(dims, input, kernel, None, 0, 1, False, return_indices)
    if return_indices:
        raise UnsupportedError(f"{name} gives indices only where the output size {out} divides the input's {size}")
    for dim, o in enumerate(out):
        axis = input.ndim - dims + dim
        pieces = [reductions.amax(narrow(input, axis, a, b - a), axis) for a, b in _pieces(input.shape[axis], o)]
        input = stack(pieces, axis)
    return input
