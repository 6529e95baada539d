"""Normalisation: layer, RMS, batch, group and instance norm are one operation over different axes."""

from __future__ import annotations

import math
from typing import Any, Iterator, Sequence

import numpy as np

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes, namespace
from dtrain.backend.blocks import row_blocks, total, total_product
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops import reduce as reductions
from dtrain.ops import unary
from dtrain.ops._loss import floating


class Standardize(Op):
    """y = (x - mean) / sqrt(var + eps) * w + b, statistics over ``axes`` of x seen in shape ``view``; RMS leaves the mean out.

    ``affine`` is the shape in which w and b (either may be None) broadcast against the view. ``stats``, the means and the
    1 / sqrt(var + eps), serve the raw backward; one that builds a graph computes them again from the input, so that no
    derivative is lost.
    """

    def __init__(self, view: tuple[int, ...], axes: tuple[int, ...], affine: tuple[int, ...], eps: float, centred: bool = True) -> None:
        self.view, self.axes, self.affine, self.eps, self.centred = view, axes, affine, eps, centred
        self.count = math.prod(view[a] for a in axes)
        self.spread = tuple(a for a, n in enumerate(affine) if n == 1)  # the axes along which w is repeated

    def forward(self, xp: Any, x: Any, w: Any = None, b: Any = None) -> Any:
        v = x.reshape(self.view)
        out = xp.empty(self.view, x.dtype)
        stat = [1 if a in self.axes else n for a, n in enumerate(self.view)]
        mean, scale = xp.empty(stat, x.dtype), xp.empty(stat, x.dtype)
        self.saved = (x, w)
        self.stats = mean, scale
        self.param_shape = () if w is b is None else (b if w is None else w).shape
        w, b = [p if p is None else p.reshape(self.affine) for p in (w, b)]
        with np.errstate(invalid="ignore", divide="ignore"):
            for at, param in self._pieces(xp):
                piece = out[at]
                self._standardize(xp, v[at], piece, mean[at], scale[at])
                if w is not None:
                    piece *= w[param]
                if b is not None:
                    piece += b[param]
        return out.reshape(x.shape)

    def _pieces(self, xp: Any) -> Iterator[tuple]:
        """Parts that the statistics do not cross, and the part of w and b for each: of dim 0 or, for batch norm, of the channels."""
        view = self.view
        if 0 not in self.axes:
            for rows in row_blocks(xp, view):
                yield rows, slice(None)
        elif len(view) == 2:
            yield slice(None), slice(None)
        else:
            for channels in row_blocks(xp, (view[1], view[0], view[2])):
                yield (slice(None), channels), (slice(None), channels)

    def _standardize(self, xp: Any, v: Any, out: Any, mean: Any, scale: Any) -> None:
        if self.centred:
            mean[...] = total(xp, v, self.axes) / self.count
            xp.subtract(v, mean, out=out)
            centred = out
        else:
            centred = v
        variance = total_product(xp, centred, centred, self.axes) / self.count
        scale[...] = 1 / xp.sqrt(variance + self.eps)
        xp.multiply(centred, scale, out=out)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, w = self.unpack(xp)
        g, v = xp.reshape(g, self.view), xp.reshape(x, self.view)
        w = w if w is None else xp.reshape(w, self.affine)
        grads = (self._graph_grads if xp.builds_graph else self._raw_grads)(xp, g, v, w)
        shapes = (tuple(x.shape), self.param_shape, self.param_shape)
        return tuple(a if a is None else xp.reshape(a, shape) for a, shape in zip(grads, shapes))

    def _graph_grads(self, xp: Any, g: Any, v: Any, w: Any) -> tuple:
        mean = lambda a: xp.mean(a, axis=self.axes, keepdims=True)  # noqa: E731
        centred = v - mean(v) if self.centred else v
        scale = 1 / xp.sqrt(mean(centred * centred) + self.eps)
        unit = centred * scale
        gw = xp.sum(g * unit, axis=self.spread, keepdims=True) if self._wants(1) else None
        gb = xp.sum(g, axis=self.spread, keepdims=True) if self._wants(2) else None
        h = g if w is None else g * w
        gx = h - unit * mean(h * unit)
        return (gx - mean(h) if self.centred else gx) * scale, gw, gb

    def _wants(self, i: int) -> bool:
        return i < len(self.edges) and self.needs(i)

    def _raw_grads(self, xp: Any, g: Any, v: Any, w: Any) -> tuple:
        mean, scale = self.stats
        gx = xp.empty(self.view, g.dtype)
        gw = xp.zeros(self.affine, g.dtype) if self._wants(1) else None
        gb = xp.zeros(self.affine, g.dtype) if self._wants(2) else None
        for at, param in self._pieces(xp):
            out, h = gx[at], g[at]
            unit = v[at] - mean[at] if self.centred else v[at] * scale[at]
            if self.centred:
                unit *= scale[at]
            if gw is not None:
                gw[param] += total_product(xp, h, unit, self.spread)
            if gb is not None:
                gb[param] += total(xp, h, self.spread)
            if w is not None:
                h = h * w[param]
            along = total_product(xp, h, unit, self.axes) / self.count
            xp.multiply(unit, along, out=unit)
            xp.subtract(h, unit, out=out)
            if self.centred:
                out -= total(xp, h, self.axes) / self.count
            out *= scale[at]
        return gx, gw, gb


def _apply(op: Standardize, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is None and bias is None:
        return apply(op, input)
    return apply(op, input, weight, bias)


def _trailing(name: str, input: Tensor, normalized_shape: Any, *params: Tensor | None) -> tuple[int, int]:
    """(rows, width) of the input for a norm over its last dims. Raises ShapeError where the shapes do not fit."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    floating(name, input)
    if not shape or tuple(input.shape[input.ndim - len(shape) :]) != shape or input.ndim < len(shape):
        raise ShapeError(f"{name} over the last dims {shape} needs an input of shape (..., {', '.join(map(str, shape))}), got {tuple(input.shape)}")
    for p in params:
        if p is not None and tuple(p.shape) != shape:
            raise ShapeError(f"{name}: weight and bias need the normalized shape {shape}, got {tuple(p.shape)}")
    width = math.prod(shape)
    return math.prod(input.shape[: input.ndim - len(shape)]), width


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int] | int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Zero mean and unit variance over the last dims, times weight, plus bias (Ba, Kiros and Hinton, 2016)."""
    rows, width = _trailing("layer_norm", input, normalized_shape, weight, bias)
    return _apply(Standardize((rows, width), (1,), (1, width), eps), input, weight, bias)


def rms_norm(input: Tensor, normalized_shape: Sequence[int] | int, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Unit mean square over the last dims, times weight (Zhang and Sennrich, 2019); eps defaults to the epsilon of the dtype computed in."""
    rows, width = _trailing("rms_norm", input, normalized_shape, weight)
    if eps is None:
        eps = dtypes.finfo(dtypes.float32 if input.dtype.is_half else input.dtype).eps
    return _apply(Standardize((rows, width), (1,), (1, width), eps, centred=False), input, weight, None)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over each group of channels (dim 1) and all positions (Wu and He, 2018)."""
    n, channels, size = _channels("group_norm", input, weight, bias)
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(f"group_norm: {channels} channels do not divide into {num_groups} groups")
    per = channels // num_groups
    return _apply(Standardize((n, num_groups, per, size), (2, 3), (1, num_groups, per, 1), eps), input, weight, bias)


def _channels(name: str, input: Tensor, *params: Tensor | None) -> tuple[int, int, int]:
    """(batch, channels, positions) of the input."""
    floating(name, input)
    if input.ndim < 2:
        raise ShapeError(f"{name} expects an input of (batch, channels, ...), got shape {tuple(input.shape)}")
    channels = input.shape[1]
    for p in params:
        if p is not None and tuple(p.shape) != (channels,):
            raise ShapeError(f"{name}: weight, bias and running statistics need shape ({channels},), got {tuple(p.shape)}")
    return input.shape[0], channels, math.prod(input.shape[2:])


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Zero mean and unit variance of each channel (dim 1) over the batch and all positions (Ioffe and Szegedy, 2015).

    ``training`` takes the batch's statistics and moves the running ones (the variance unbiased) towards them by
    ``momentum``, in place; otherwise the running ones are used. Raises ArgumentError in training for one value a channel.
    """
    n, channels, size = _channels("batch_norm", input, weight, bias, running_mean, running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm outside training needs running_mean and running_var; pass them, or training=True")
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    if n * size == 1:
        raise ArgumentError(f"batch_norm in training needs more than one value a channel, got shape {tuple(input.shape)}; enlarge the batch or use eval()")
    view, axes, affine = ((n, channels, size), (0, 2), (1, channels, 1)) if size != 1 else ((n, channels), (0,), (1, channels))
    op = Standardize(view, axes, affine, eps)
    out = _apply(op, input, weight, bias)
    if running_mean is not None or running_var is not None:
        _move(op, running_mean, running_var, momentum, (-1,))
    return out


def _by_running(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    scale = unary.rsqrt(var.detach() + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean.detach() * scale
    shift = shift if bias is None else shift + bias
    column = (1, -1, *[1] * (input.ndim - 2))
    out = input * scale.reshape(column) + shift.reshape(column)  # type: ignore[attr-defined]
    return out if out.dtype is input.dtype else out.to(input.dtype)  # type: ignore[attr-defined]


def _move(op: Standardize, running_mean: Tensor | None, running_var: Tensor | None, momentum: float, shape: tuple) -> None:
    """Move the running statistics towards those ``op`` has just computed; over a batch of instances their mean."""
    mean, scale = op.stats
    xp = namespace.of(mean)
    variance = xp.maximum(1 / (scale * scale) - op.eps, 0) * (op.count / max(op.count - 1, 1))
    for running, value in ((running_mean, mean), (running_var, variance)):
        if running is None:
            continue
        if shape != (-1,):
            value = xp.mean(value.reshape(shape), axis=0)
        moved = running._array * (1 - momentum) + value.reshape(-1) * momentum
        running._array[...] = moved
        running._vc[0] += 1


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Zero mean and unit variance of each channel of each item over its positions (Ulyanov and others, 2016)."""
    n, channels, size = _channels("instance_norm", input, weight, bias, running_mean, running_var)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ArgumentError("instance_norm without use_input_stats needs running_mean and running_var")
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    if size == 1:
        raise ArgumentError(f"instance_norm needs more than one position a channel, got shape {tuple(input.shape)}")
    op = Standardize((n, channels, size), (2,), (1, channels, 1), eps)
    out = _apply(op, input, weight, bias)
    if running_mean is not None or running_var is not None:
        _move(op, running_mean, running_var, momentum, (n, channels))
    return out


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """input over its p-norm along ``dim`` (at least ``eps``)."""
    size = reductions.norm(input, p, dim, True)
    return input / unary.clamp(size, min=eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between ``x1`` and ``x2`` along ``dim``, broadcasting; norms are at least ``eps``."""
    lengths = [unary.clamp(reductions.norm(x, 2, dim, True), min=eps) for x in (x1, x2)]
    return reductions.sum((x1 / lengths[0]) * (x2 / lengths[1]), dim)
