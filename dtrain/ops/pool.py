"""Pooling over one, two or three dims. Maxima and sums of windows are taken one dim after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.blocks import row_blocks
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._windows import Windows, per_dim


class Pool(Op):
    """Base: windows over the last dims of x, seen as (planes, *size)."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def planes(self, x: Any) -> Any:
        return x.reshape(-1, *x.shape[x.ndim - len(self.windows.size) :])

    def shaped(self, like: Any, size: tuple[int, ...]) -> tuple[int, ...]:
        return (*like.shape[: like.ndim - len(size)], *size)


class MaxPool(Pool):
    """y = the maximum of each window; the gradient goes to the first element that attains it."""

    def forward(self, xp: Any, x: Any) -> Any:
        win, planes = self.windows, self.planes(x)
        y = xp.empty((planes.shape[0], *win.out), x.dtype)
        for rows in row_blocks(xp, planes.shape):
            part = win.pad(xp, planes[rows], lowest(x.dtype))
            for dim in range(len(win.size)):
                part = _along(xp.maximum, win, dim, part)
            y[rows] = part
        y = y.reshape(self.shaped(x, win.out))
        self.saved = (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        x, y = self.unpack(xp)
        return (xp.run(Route(self.windows), g, xp.constant(x), xp.constant(y)),)


class Route(Pool):
    """Each window's value of g goes to where x attains the window's maximum y: the gradient of MaxPool."""

    def forward(self, xp: Any, g: Any, x: Any, y: Any) -> Any:
        self.saved = (x, y)
        win = self.windows
        g, y, planes = self.planes(g), self.planes(y), self.planes(x)
        out = xp.zeros(planes.shape, g.dtype)
        for rows in row_blocks(xp, planes.shape):
            part = xp.zeros((rows.stop - rows.start, *win.padded), g.dtype) if win.is_padded else out[rows]
            for place, hit in _hits(xp, win, planes[rows], y[rows]):
                part[(..., *place)] += g[rows] * hit
            if win.is_padded:
                out[rows] = part[(..., *win.interior)]
        return out.reshape(x.shape)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, y = self.unpack(xp)
        return xp.run(Pick(self.windows), g, xp.constant(x), xp.constant(y)), None, None


class Pick(Pool):
    """Each window's element of h where x attains the window's maximum y: the transpose of Route."""

    def forward(self, xp: Any, h: Any, x: Any, y: Any) -> Any:
        self.saved = (x, y)
        win = self.windows
        h, top = win.pad(xp, self.planes(h), 0), self.planes(y)
        out = xp.zeros(top.shape, h.dtype)
        for place, hit in _hits(xp, win, self.planes(x), top):
            out += h[(..., *place)] * hit
        return out.reshape(y.shape)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, y = self.unpack(xp)
        return xp.run(Route(self.windows), g, xp.constant(x), xp.constant(y)), None, None


class MaxPoolIndices(Pool):
    """For each window the flat position in its plane of the first maximum (a NaN counts as one); int64."""

    differentiable = False

    def forward(self, xp: Any, x: Any) -> Any:
        win = self.windows
        source = win.pad(xp, self.planes(x), lowest(x.dtype))
        best, found = None, None
        for place, position in zip(win.offsets(), _positions(win)):
            values, position = source[(..., *place)], xp.asarray(position)
            if best is None:
                best, found = values, xp.broadcast_to(position, values.shape)
                continue
            better = (values > best) | (values != values)
            best, found = xp.where(better, values, best), xp.where(better, position, found)
        return found.reshape(self.shaped(x, win.out))


class WindowSum(Pool):
    """y = scale * the sum of each window; scale is a number or an array of shape ``out``."""

    def __init__(self, windows: Windows, scale: Any) -> None:
        self.windows, self.scale = windows, scale

    def forward(self, xp: Any, x: Any) -> Any:
        win, planes = self.windows, self.planes(x)
        y = xp.empty((planes.shape[0], *win.out), x.dtype)
        scale = _on(xp, self.scale, x.dtype)
        for rows in row_blocks(xp, planes.shape):
            part = win.pad(xp, planes[rows], 0)
            for dim in range(len(win.size)):
                part = _along(xp.add, win, dim, part)
            xp.multiply(part, scale, out=y[rows])
        return y.reshape(self.shaped(x, win.out))

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(WindowSpread(self.windows, self.scale), g),)


class WindowSpread(WindowSum):
    """x = scale * g added to every element of its window: the transpose of WindowSum."""

    def forward(self, xp: Any, g: Any) -> Any:
        win, planes = self.windows, self.planes(g)
        x = xp.empty((planes.shape[0], *win.size), g.dtype)
        scale = _on(xp, self.scale, g.dtype)
        for rows in row_blocks(xp, x.shape):
            part = planes[rows] * scale
            for dim in reversed(range(len(win.size))):
                part = _spread(xp, win, dim, part)
            x[rows] = part[(..., *win.interior)]
        return x.reshape(self.shaped(g, win.size))

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(WindowSum(self.windows, self.scale), g),)


def _line(win: Windows, dim: int, i: int) -> tuple:
    """The key of the i-th element of every window along one dim of an array (planes, *dims)."""
    start = i * win.dilation[dim]
    piece = slice(start, start + (win.out[dim] - 1) * win.stride[dim] + 1, win.stride[dim])
    return (slice(None),) * (dim + 1) + (piece,)


def _along(f: Any, win: Windows, dim: int, x: Any) -> Any:
    """Fold the windows' elements along one dim with ``f``."""
    kernel = win.kernel[dim]
    first = x[_line(win, dim, 0)]
    if kernel == 1:
        return first
    out = f(first, x[_line(win, dim, 1)])
    for i in range(2, kernel):
        f(out, x[_line(win, dim, i)], out=out)
    return out


def _spread(xp: Any, win: Windows, dim: int, g: Any) -> Any:
    """The transpose of ``_along`` with add."""
    out = xp.zeros((*g.shape[: dim + 1], win.padded[dim], *g.shape[dim + 2 :]), g.dtype)
    for i in range(win.kernel[dim]):
        out[_line(win, dim, i)] += g
    return out


def _hits(xp: Any, win: Windows, x: Any, y: Any) -> Any:
    """For each place in the kernel, its key and where x has its window's maximum there, the first one only."""
    source = win.pad(xp, x, lowest(x.dtype))
    open_ = xp.ones(y.shape, bool)
    for place in win.offsets():
        hit = xp.greater_equal(source[(..., *place)], y)
        hit |= y != y
        hit &= open_
        open_ ^= hit
        yield place, hit


def _positions(win: Windows) -> Any:
    """For each place in the kernel the flat position, in the array without padding, of that element of every window."""
    for place in win.offsets():
        flat = np.zeros((), np.int64)
        for piece, (before, _), n in zip(place, win.padding, win.size):
            flat = flat[..., None] * n + (np.arange(piece.start, piece.stop, piece.step) - before)
        yield flat


def lowest(dtype: Any) -> Any:
    """What every number of ``dtype`` exceeds or equals."""
    return -np.inf if dtype.kind in "fV" else np.iinfo(dtype).min


def _on(xp: Any, scale: Any, dtype: Any) -> Any:
    return xp.asarray(scale).astype(dtype) if isinstance(scale, np.ndarray) else scale


def geometry(name: str, dims: int, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    """The windows of a pooling. Raises ShapeError or ArgumentError where they do not fit."""
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name} expects an input of (batch, channels, {dims} dims) or without batch, got shape {tuple(input.shape)}")
    kernel = per_dim(name, "kernel_size", kernel, dims)
    stride = kernel if stride is None or stride == [] or stride == () else per_dim(name, "stride", stride, dims)
    pads, dilation = per_dim(name, "padding", padding, dims), per_dim(name, "dilation", dilation, dims)
    if any(p * 2 > k for p, k in zip(pads, kernel)):
        raise ArgumentError(f"{name}: padding {pads} is more than half the kernel {kernel}; some windows would hold padding only")
    size = tuple(input.shape[-dims:])
    out = None
    if ceil_mode:
        sizes = zip(size, kernel, stride, pads, dilation)
        out = tuple(_ceil_out(n, d * (k - 1) + 1, s, p) for n, k, s, p, d in sizes)
    return Windows(size, kernel, stride, tuple((p, p) for p in pads), dilation, out)


def _ceil_out(n: int, span: int, stride: int, pad: int) -> int:
    """The number of windows where the last may be incomplete, but begins inside the input or its padding before."""
    out = -(-(n + 2 * pad - span) // stride) + 1
    return out - 1 if (out - 1) * stride >= n + pad else out


def max_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    """What max_pool1d, 2d and 3d call."""
    win = geometry(f"max_pool{dims}d", dims, input, kernel_size, stride, padding, dilation, ceil_mode)
    out = apply(MaxPool(win), input)
    return (out, apply(MaxPoolIndices(win), input)) if return_indices else out


def avg_pool(
    dims: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """What avg_pool1d, 2d and 3d call."""
    name = f"avg_pool{dims}d"
    win = geometry(name, dims, input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and divisor_override == 0:
        raise ArgumentError(f"{name}: divisor_override must not be 0")
    return apply(WindowSum(win, 1 / divisor_override if divisor_override else _shares(win, count_include_pad)), input)


def _shares(win: Windows, count_include_pad: bool) -> Any:
    """1 / the number of elements of each window that count: a number where all are equal."""
    counts = np.ones(())
    for n, k, s, o, (before, after) in zip(win.size, win.kernel, win.stride, win.out, win.padding):
        start = np.arange(o) * s - before
        stop = np.minimum(start + k, n + after)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, n)
        counts = counts[..., None] * (stop - start)
    return 1 / float(counts.flat[0]) if counts.size and (counts == counts.flat[0]).all() else 1 / counts
