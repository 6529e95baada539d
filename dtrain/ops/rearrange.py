"""Images rearranged: windows as columns and back, pixels between channels and positions."""

from __future__ import annotations

import math
from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ShapeError
from dtrain.ops._windows import Windows, per_dim
from dtrain.ops.shape import permute, reshape, squeeze, unsqueeze


class Unfold(Op):
    """(N, C, *size) as columns (N, C * kernel places, windows)."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def forward(self, xp: Any, x: Any) -> Any:
        win = self.windows
        source = win.pad(xp, x, 0)
        out = xp.empty((*x.shape[:2], win.count, *win.out), x.dtype)
        for i, place in enumerate(win.offsets()):
            out[:, :, i] = source[(..., *place)]
        return out.reshape(x.shape[0], x.shape[1] * win.count, math.prod(win.out))

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(Fold(self.windows), g),)


class Fold(Unfold):
    """Columns added where they come from: the transpose of Unfold."""

    def forward(self, xp: Any, columns: Any) -> Any:
        win = self.windows
        n, rows = columns.shape[:2]
        columns = columns.reshape(n, rows // win.count, win.count, *win.out)
        out = xp.zeros((n, rows // win.count, *win.padded), columns.dtype)
        for i, place in enumerate(win.offsets()):
            out[(..., *place)] += columns[:, :, i]
        return out[(..., *win.interior)]

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.run(Unfold(self.windows), g),)


def _windows(name: str, size: tuple[int, ...], kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    kernel, step = per_dim(name, "kernel_size", kernel_size, 2), per_dim(name, "stride", stride, 2)
    pads = tuple((p, p) for p in per_dim(name, "padding", padding, 2))
    return Windows(size, kernel, step, pads, per_dim(name, "dilation", dilation, 2))


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of (N, C, H, W) as columns: (N, C * kernel places, windows)."""
    if input.ndim not in (3, 4):
        raise ShapeError(f"unfold expects (N, C, H, W) or (C, H, W), got shape {tuple(input.shape)}")
    op = Unfold(_windows("unfold", tuple(input.shape[-2:]), kernel_size, dilation, padding, stride))
    return apply(op, input) if input.ndim == 4 else squeeze(apply(op, unsqueeze(input, 0)), 0)


def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Columns (N, C * kernel places, windows) added up to (N, C, *output_size), as ``unfold`` takes them."""
    win = _windows("fold", per_dim("fold", "output_size", output_size, 2), kernel_size, dilation, padding, stride)
    if input.ndim not in (2, 3) or input.shape[-2] % win.count or input.shape[-1] != math.prod(win.out):
        raise ShapeError(
            f"fold to {win.size} expects columns (N, C * {win.count}, {math.prod(win.out)}) for {win.out} windows, got shape {tuple(input.shape)}"
        )
    return apply(Fold(win), input) if input.ndim == 3 else squeeze(apply(Fold(win), unsqueeze(input, 0)), 0)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) as (..., C, H * r, W * r)."""
    r = upscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-3] % (r * r):
        raise ShapeError(f"pixel_shuffle by {r} expects (..., channels, H, W) with channels a multiple of {r * r}, got shape {tuple(input.shape)}")
    lead, (c, h, w) = tuple(input.shape[:-3]), input.shape[-3:]
    x = reshape(input, (*lead, c // (r * r), r, r, h, w))
    n = len(lead)
    return reshape(permute(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2)), (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) as (..., C * r * r, H, W): the reverse of pixel_shuffle."""
    r = downscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-2] % r or input.shape[-1] % r:
        raise ShapeError(f"pixel_unshuffle by {r} expects (..., channels, H, W) with H and W multiples of {r}, got shape {tuple(input.shape)}")
    lead, (c, h, w) = tuple(input.shape[:-3]), input.shape[-3:]
    x = reshape(input, (*lead, c, h // r, r, w // r, r))
    n = len(lead)
    return reshape(permute(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3)), (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, groups * k, ...) with the channels of the groups interleaved."""
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise ShapeError(f"channel_shuffle in {groups} groups expects (N, channels, ...) with channels a multiple, got shape {tuple(input.shape)}")
    n, c, *rest = input.shape
    x = reshape(input, (n, groups, c // groups, *rest))
    return reshape(permute(x, (0, 2, 1, *range(3, len(rest) + 3))), tuple(input.shape))
