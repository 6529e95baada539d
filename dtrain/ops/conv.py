"""Convolution and its transpose over one, two or three dims, by matrix products.

A piece of the batch is spread out so that each column holds one window (channels times kernel places); the weights, one row
an output channel, times that matrix are the outputs. Pieces are small enough for the columns to stay in the cache, so that
they cost little beside the product and no memory.

Three operations are closed under differentiation, each bilinear in two of input x, weight w and output y:
Convolve (x, w -> y), ConvInput (y, w -> x), which also is the transposed convolution, and ConvWeight (x, y -> w).
"""

from __future__ import annotations

from typing import Any, Iterator

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.blocks import Scratch, total
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._shape import one_dtype
from dtrain.ops._windows import Windows, per_dim
from dtrain.ops.shape import squeeze, unsqueeze

_COLUMNS = 1 << 18  # elements of the spread-out piece on the CPU: 1 MiB of float32
_COLUMNS_CUDA = 1 << 27
_LEAST_WIDTH = 256  # a narrower matrix product wastes the machine


class Bilinear(Op):
    """Base of the three: the windows over x, and how many groups the channels fall into."""

    def __init__(self, windows: Windows, groups: int) -> None:
        self.windows, self.groups = windows, groups

    def pieces(self, xp: Any, n: int, channels: int) -> Iterator[slice]:
        """Slices of the batch whose columns have a good size."""
        places = max(1, _size(self.windows.out))
        each = max(1, channels * self.windows.count * places)
        limit = _COLUMNS if xp.name == "numpy" else _COLUMNS_CUDA
        step = max(1, limit // each, min(n, -(-_LEAST_WIDTH // places)))
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def columns(self, xp: Any, x: Any, scratch: Scratch) -> Any:
        """(n, C, *size) as (groups, C / groups * kernel places, n * windows)."""
        win = self.windows
        n, channels = x.shape[:2]
        if win.count == 1 and win.size == win.out and not win.is_padded:
            return _lanes(xp, x, self.groups)
        source = x
        if win.is_padded:
            source = scratch.zeros(xp, (n, channels, *win.padded), x.dtype)
            source[(..., *win.interior)] = x
        out = scratch.empty(xp, "columns", (channels, win.count, n, *win.out), x.dtype)
        for i, place in enumerate(win.offsets()):
            out[:, i] = xp.swapaxes(source[(slice(None), slice(None), *place)], 0, 1)
        return out.reshape(self.groups, channels // self.groups * win.count, n * _size(win.out))

    def fold(self, xp: Any, rows: Any, lanes: Any, n: int, channels: int, scratch: Scratch) -> Any:
        """The transpose of ``columns`` after rows @ lanes: each window's elements added where they came from, (n, C, *size)."""
        win = self.windows
        columns = scratch.empty(xp, "columns", (self.groups, rows.shape[1], lanes.shape[2]), lanes.dtype)
        product = xp.multiply if lanes.shape[1] == 1 else xp.matmul  # of one output channel a group: NumPy's matmul is slow there
        columns = product(rows, lanes, out=columns).reshape(channels, win.count, n, *win.out)
        out = scratch.zeros(xp, (channels, n, *win.padded), columns.dtype)
        out[...] = 0
        for i, place in enumerate(win.offsets()):
            out[(slice(None), slice(None), *place)] += columns[:, i]
        return xp.swapaxes(out[(slice(None), slice(None), *win.interior)], 0, 1)


class Convolve(Bilinear):
    """y[o] = sum over channels c and kernel places k of w[o, c, k] * x[c] shifted by k, plus b[o]."""

    def forward(self, xp: Any, x: Any, w: Any, b: Any = None) -> Any:
        self.saved = (x, w)
        n, out_channels = x.shape[0], w.shape[0]
        y = xp.empty((n, out_channels, *self.windows.out), x.dtype)
        if xp.name == "meta":
            return y
        rows = w.reshape(self.groups, out_channels // self.groups, -1)
        scratch = Scratch()
        for piece in self.pieces(xp, n, x.shape[1]):
            columns = self.columns(xp, x[piece], scratch)
            part = _unlanes(xp, xp.matmul(rows, columns), piece.stop - piece.start, y.shape)
            if b is None:
                y[piece] = part
            else:
                xp.add(part, _column(b, part), out=y[piece])
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        x, w = self.unpack(xp)
        gx = xp.run(ConvInput(self.windows, self.groups), g, w) if self.needs(0) else None
        gw = xp.run(ConvWeight(self.windows, self.groups), x, g) if self.needs(1) else None
        gb = _bias_grad(xp, g) if len(self.edges) > 2 and self.needs(2) else None
        return gx, gw, gb


class ConvInput(Bilinear):
    """x[c] = sum over output channels o and kernel places k of w[o, c, k] * y[o] shifted back by k, plus b[c]."""

    def forward(self, xp: Any, y: Any, w: Any, b: Any = None) -> Any:
        self.saved = (y, w)
        n, channels = y.shape[0], w.shape[1] * self.groups
        x = xp.empty((n, channels, *self.windows.size), y.dtype)
        if xp.name == "meta":
            return x
        rows = xp.swapaxes(w.reshape(self.groups, w.shape[0] // self.groups, -1), 1, 2)
        scratch = Scratch()
        for piece in self.pieces(xp, n, channels):
            part = self.fold(xp, rows, _lanes(xp, y[piece], self.groups), piece.stop - piece.start, channels, scratch)
            if b is None:
                x[piece] = part
            else:
                xp.add(part, _column(b, part), out=x[piece])
        return x

    def backward(self, xp: Any, g: Any) -> tuple:
        y, w = self.unpack(xp)
        gy = xp.run(Convolve(self.windows, self.groups), g, w) if self.needs(0) else None
        gw = xp.run(ConvWeight(self.windows, self.groups), g, y) if self.needs(1) else None
        gb = _bias_grad(xp, g) if len(self.edges) > 2 and self.needs(2) else None
        return gy, gw, gb


class ConvWeight(Bilinear):
    """w[o, c, k] = sum over items and windows of y[o] * x[c] shifted by k."""

    def forward(self, xp: Any, x: Any, y: Any) -> Any:
        self.saved = (x, y)
        n, out_channels, channels = x.shape[0], y.shape[1], x.shape[1]
        shape = (out_channels, channels // self.groups, *self.windows.kernel)
        if xp.name == "meta":
            return xp.empty(shape, x.dtype)
        w = xp.zeros((self.groups, out_channels // self.groups, channels // self.groups * self.windows.count), x.dtype)
        scratch = Scratch()
        for piece in self.pieces(xp, n, channels):
            w += xp.matmul(_lanes(xp, y[piece], self.groups), xp.swapaxes(self.columns(xp, x[piece], scratch), 1, 2))
        return w.reshape(shape)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, y = self.unpack(xp)
        gx = xp.run(ConvInput(self.windows, self.groups), y, g) if self.needs(0) else None
        gy = xp.run(Convolve(self.windows, self.groups), x, g) if self.needs(1) else None
        return gx, gy


def _size(shape: tuple[int, ...]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def _lanes(xp: Any, y: Any, groups: int) -> Any:
    """(n, C, *out) as (groups, C / groups, n * windows)."""
    return xp.swapaxes(y, 0, 1).reshape(groups, y.shape[1] // groups, y.shape[0] * _size(y.shape[2:]))


def _unlanes(xp: Any, lanes: Any, n: int, shape: tuple[int, ...]) -> Any:
    """The reverse of ``_lanes``: a view of shape (n, *shape[1:])."""
    return xp.swapaxes(lanes.reshape(shape[1], n, *shape[2:]), 0, 1)


def _column(b: Any, like: Any) -> Any:
    return b.reshape((-1, *[1] * (like.ndim - 2)))


def _bias_grad(xp: Any, g: Any) -> Any:
    axes = (0, *range(2, len(g.shape)))
    return xp.sum(g, axis=axes) if xp.builds_graph else total(xp, g, axes).reshape(-1)


def _padding(name: str, padding: Any, kernel: tuple, stride: tuple, dilation: tuple) -> tuple[tuple[int, int], ...]:
    dims = len(kernel)
    if padding == "valid":
        return ((0, 0),) * dims
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ArgumentError(f"{name}: padding='same' needs stride 1, got {stride}; give the padding as numbers")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):
        raise ArgumentError(f"{name}: padding is {padding!r}; expected 'same', 'valid' or numbers")
    return tuple((p, p) for p in per_dim(name, "padding", padding, dims))


def _checked(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool) -> bool:
    """Raise for shapes and dtypes that do not fit; whether the input lacks the batch dim."""
    if weight.ndim != dims + 2:
        raise ShapeError(f"{name} expects a weight of {dims + 2} dims (channels, channels, kernel), got shape {tuple(weight.shape)}")
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name} expects an input of (batch, channels, {dims} dims) or without batch, got shape {tuple(input.shape)}")
    channels, wanted = input.shape[-dims - 1], weight.shape[0] if transposed else weight.shape[1] * groups
    if groups < 1 or channels != wanted or weight.shape[0] % groups:
        raise ShapeError(
            f"{name}: an input of {channels} channels (shape {tuple(input.shape)}) and a weight of shape {tuple(weight.shape)} do not fit "
            f"with {groups} groups; the weight takes {wanted} channels"
        )
    out = weight.shape[1] * groups if transposed else weight.shape[0]
    if bias is not None and tuple(bias.shape) != (out,):
        raise ShapeError(f"{name}: bias needs shape ({out},), got {tuple(bias.shape)}")
    one_dtype(name, input, weight)
    return input.ndim == dims + 1


def convolve(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """Convolution over ``dims`` dims: what conv1d, conv2d and conv3d call."""
    name = f"conv{dims}d"
    single = _checked(name, dims, input, weight, bias, groups, False)
    stride, dilation = per_dim(name, "stride", stride, dims), per_dim(name, "dilation", dilation, dims)
    kernel = tuple(weight.shape[2:])
    windows = Windows(tuple(input.shape[-dims:]), kernel, stride, _padding(name, padding, kernel, stride, dilation), dilation)
    op = Convolve(windows, groups)
    x = unsqueeze(input, 0) if single else input
    out = apply(op, x, weight) if bias is None else apply(op, x, weight, bias)
    return squeeze(out, 0) if single else out


def convolve_transposed(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any
) -> Tensor:
    """Transposed convolution over ``dims`` dims: what conv_transpose1d, 2d and 3d call."""
    name = f"conv_transpose{dims}d"
    single = _checked(name, dims, input, weight, bias, groups, True)
    stride, dilation = per_dim(name, "stride", stride, dims), per_dim(name, "dilation", dilation, dims)
    pads, extra = per_dim(name, "padding", padding, dims), per_dim(name, "output_padding", output_padding, dims)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise ArgumentError(f"{name}: output_padding {extra} must be smaller than stride {stride} or dilation {dilation}")
    kernel, inner = tuple(weight.shape[2:]), tuple(input.shape[-dims:])
    sizes = zip(inner, stride, pads, dilation, kernel, extra)
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in sizes)
    if min(size) < 1:
        raise ShapeError(f"{name}: an input of {inner} with padding {pads} leaves an output of {size}; reduce the padding")
    op = ConvInput(Windows(size, kernel, stride, tuple((p, p) for p in pads), dilation, inner), groups)
    x = unsqueeze(input, 0) if single else input
    out = apply(op, x, weight) if bias is None else apply(op, x, weight, bias)
    return squeeze(out, 0) if single else out


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolution of (N, C, L) with (O, C / groups, K); padding is a number, "same" or "valid"."""
    return convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolution of (N, C, H, W) with (O, C / groups, KH, KW); padding is numbers, "same" or "valid"."""
    return convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolution of (N, C, D, H, W) with (O, C / groups, KD, KH, KW); padding is numbers, "same" or "valid"."""
    return convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of conv1d: (N, C, L) with a weight of (C, O / groups, K)."""
    return convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of conv2d: (N, C, H, W) with a weight of (C, O / groups, KH, KW)."""
    return convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of conv3d: (N, C, D, H, W) with a weight of (C, O / groups, KD, KH, KW)."""
    return convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
