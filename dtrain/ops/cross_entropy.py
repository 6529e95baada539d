"""Cross entropy and negative log likelihood over class indices, each one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.blocks import row_blocks, row_max, row_sum
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from dtrain.ops import reduce as reductions
from dtrain.ops._loss import constant, floating, resolve
from dtrain.ops.softmax import LogSoftmax, log_softmax


class ClassLoss(Op):
    """Base: a loss of scores (N, C) or (N, C, S) and class indices (N,) or (N, S), with weights of classes (C,).

    An item of class t counts weight[t], or 1, or nothing when t is ``ignore``; the mean divides by the sum of the counts.
    The log-sum-exp of a row and the counts are saved beside the input: the raw backward takes them, a backward that
    builds a graph computes them again from the input, so that no derivative is lost.
    """

    def __init__(self, reduction: str, ignore: int, smoothing: float = 0.0) -> None:
        self.reduction, self.ignore, self.smoothing = reduction, ignore, smoothing

    def forward(self, xp: Any, x: Any, target: Any, weight: Any = None) -> Any:
        index, keep = _checked(xp, target, x.shape[1], self.ignore)
        counts = keep if weight is None else xp.take(weight, index)
        if weight is not None and keep is not None:
            counts = counts * keep
        with np.errstate(invalid="ignore", divide="ignore"):
            values, normal = self.values(xp, x, xp.expand_dims(index, 1), keep, counts, weight)
            total = index.size if counts is None else xp.sum(xp.cast(counts, x.dtype))
            self.saved = (x, weight, (normal, index, keep, counts, total))
            if self.reduction == "none":
                return values
            out = xp.sum(values)
            return xp.asarray(out / total if self.reduction == "mean" else out)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, weight, (normal, index, keep, counts, total) = self.unpack(xp)
        a = g
        if self.reduction == "mean":
            if counts is not None:  # when every item is ignored the loss is 0/0, its gradient still 0
                total = total + (total == 0)
            a = g / (_wrap(xp, total, g) if counts is not None else max(total, 1))
        b = a if counts is None else a * _wrap(xp, counts, g)
        if keep is not None and self.smoothing:
            a = a * _wrap(xp, keep, g)
        if len(b.shape):
            a, b = xp.expand_dims(a, 1) if len(a.shape) else a, xp.expand_dims(b, 1)
        slope = self.graph_slope if xp.builds_graph else self.raw_slope
        return slope(xp, x, weight, normal, index, a, b), None, None

    def one_hot(self, x: Any, index: Any) -> Any:
        """1 at the targets, as a constant Tensor like the Tensor ``x``."""
        raw = _namespace(x)
        out = raw.zeros(x.shape, x._array.dtype)
        out[_positions(raw, index)] = 1
        return Tensor._wrap(out)


class CrossEntropy(ClassLoss):
    """loss = (1 - s) * count * (log(sum(exp(x))) - x[t]) + s / C * sum(w * (log(sum(exp(x))) - x)), s the label smoothing."""

    def values(self, xp: Any, x: Any, index: Any, keep: Any, counts: Any, weight: Any) -> tuple:
        normal = _log_sum_exp(xp, x)
        values = xp.squeeze(normal - xp.take_along_axis(x, index, 1), 1)
        if counts is not None:
            values = xp.where(counts == 0, 0, values * counts)
        if self.smoothing:
            values *= 1 - self.smoothing
            spread = xp.squeeze(normal, 1) * self.mass(xp, x, weight)
            spread -= xp.sum(x if weight is None else x * _column(weight, x), axis=1)
            if keep is not None:
                spread *= keep
            values += spread * (self.smoothing / x.shape[1])
        return values, normal

    def mass(self, xp: Any, x: Any, weight: Any) -> Any:
        return x.shape[1] if weight is None else xp.sum(weight)

    def raw_slope(self, xp: Any, x: Any, weight: Any, normal: Any, index: Any, a: Any, b: Any) -> Any:
        """softmax(x) * share - b at the targets - what smoothing takes everywhere, in one array."""
        smooth = self.smoothing
        share = b if not smooth else b * (1 - smooth) + a * (smooth / x.shape[1] * self.mass(xp, x, weight))
        out = xp.empty_like(x)
        for rows in row_blocks(xp, x.shape):
            piece = out[rows]
            xp.subtract(x[rows], normal[rows], out=piece)
            xp.exp(piece, out=piece)
            piece *= share[rows] if share.ndim else share
        positions = _positions(xp, index)
        out[positions] -= (xp.squeeze(b, 1) if b.ndim else b) * (1 - smooth)
        if smooth:
            out -= a * (smooth / x.shape[1]) * (1 if weight is None else _column(weight, x))
        return out

    def graph_slope(self, xp: Any, x: Any, weight: Any, normal: Any, index: Any, a: Any, b: Any) -> Any:
        part = self.smoothing / x.shape[1]
        probabilities = xp.exp(xp.run(LogSoftmax(1), x))
        mass = x.shape[1] if weight is None else xp.sum(weight)
        b = b * (1 - self.smoothing)
        out = probabilities * (b + a * part * mass) - self.one_hot(x, index) * b
        if not self.smoothing:
            return out
        return out - a * part * (xp.ones_like(x) if weight is None else _column(weight, x))


class NllLoss(ClassLoss):
    """loss = -count * x[t]."""

    def values(self, xp: Any, x: Any, index: Any, keep: Any, counts: Any, weight: Any) -> tuple:
        values = -xp.squeeze(xp.take_along_axis(x, index, 1), 1)
        return (values if counts is None else xp.where(counts == 0, 0, values * counts)), None

    def raw_slope(self, xp: Any, x: Any, weight: Any, normal: Any, index: Any, a: Any, b: Any) -> Any:
        out = xp.zeros_like(x)
        out[_positions(xp, index)] = -(xp.squeeze(b, 1) if b.ndim else b)
        return out

    def graph_slope(self, xp: Any, x: Any, weight: Any, normal: Any, index: Any, a: Any, b: Any) -> Any:
        return -(self.one_hot(x, index) * b)


def _log_sum_exp(xp: Any, x: Any) -> Any:
    """log(sum(exp(x))) over dim 1, kept as 1; exp(x) exists for a piece at a time only."""
    out = xp.empty((x.shape[0], 1, *x.shape[2:]), x.dtype)
    for rows in row_blocks(xp, x.shape):
        top = row_max(xp, x[rows], 1) if x.size else x[rows][:, :1]
        scores = x[rows] - top
        xp.exp(scores, out=scores)
        out[rows] = xp.log(row_sum(xp, scores, 1)) + top
    return out


def _checked(xp: Any, target: Any, classes: int, ignore: int) -> tuple:
    """The targets as int64 with 0 where ignored, and a mask of those that count (None: all). Raises IndexRangeError."""
    index = target if target.dtype == np.int64 else target.astype(np.int64)
    if xp.name == "meta" or not index.size:
        return index, None
    low, high = _span(xp, index)
    if 0 <= low and high < classes and not low <= ignore <= high:
        return index, None
    keep = index != ignore
    index = xp.where(keep, index, 0)
    low, high = _span(xp, index)
    if low < 0 or high >= classes:
        bad = low if low < 0 else high
        where = tuple(int(n[0]) for n in xp.nonzero(index == bad))
        raise IndexRangeError(
            f"target {bad} at position {where} is outside the classes 0 to {classes - 1}; "
            f"only ignore_index (here {ignore}) may lie outside. Does the last layer have as many outputs as there are classes?"
        )
    return index, keep


def _span(xp: Any, index: Any) -> tuple[int, int]:
    """Smallest and largest, in one transfer from a device."""
    low, high = xp.stack([xp.min(index), xp.max(index)]).tolist()
    return low, high


def _positions(xp: Any, index: Any) -> tuple:
    """The key of the scores at the targets."""
    rows = xp.arange(index.shape[0])
    return (rows, index) if len(index.shape) == 1 else (rows[:, None], index, xp.arange(index.shape[1]))


def _column(weight: Any, x: Any) -> Any:
    """Weights of classes, shaped to broadcast against scores."""
    return weight if len(x.shape) == 2 else weight.reshape(-1, 1)


def _wrap(xp: Any, raw: Any, like: Any) -> Any:
    return xp.cast(Tensor._wrap(_namespace(like).asarray(raw)), like.dtype) if xp.builds_graph else raw


def _namespace(x: Tensor) -> Any:
    from dtrain.backend import namespace

    return namespace.of(x._array)


def _apply(name: str, op: ClassLoss, input: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Check shapes, bring them to (N, C) or (N, C, S), and give the result the target's shape unless it is reduced."""
    shape = input.shape
    floating(name, input, weight)
    constant(name, "weight", weight)
    if target._array.dtype.kind not in "iu":
        raise DtypeError(f"{name} expects class indices as integers, or probabilities of the input's shape; got {target.dtype} {tuple(target.shape)}")
    expected = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if not shape or target.shape != expected:
        raise ShapeError(f"{name}: input {tuple(shape)} (batch, classes, ...) needs a target of shape {tuple(expected)}, got {tuple(target.shape)}")
    classes = shape[1] if len(shape) > 1 else shape[0]
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"{name}: weight needs one element for each of the {classes} classes, got shape {tuple(weight.shape)}")
    if weight is not None and weight._array.dtype != input._array.dtype:
        weight = weight.to(input.dtype)  # type: ignore[attr-defined]
    flat, index = input, target
    if len(shape) == 1:
        flat, index = input.reshape(1, classes), target.reshape(1)  # type: ignore[attr-defined]
    elif len(shape) > 3:
        flat = input.reshape(shape[0], classes, target.numel() // max(shape[0], 1))  # type: ignore[attr-defined]
        index = target.reshape(shape[0], flat.shape[2])  # type: ignore[attr-defined]
    out = apply(op, flat, index, weight)
    return out.reshape(target.shape) if op.reduction == "none" and out.shape != target.shape else out


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of unnormalised scores, (C), (N, C) or (N, C, d1, ...), with class indices or probabilities.

    Indices are of any integer dtype and have the input's shape without C; probabilities have its full shape. ``weight``
    (C,) counts classes; targets of ``ignore_index`` do not count. "mean" divides by the sum of the counts (with
    probabilities, by the number of items). Raises IndexRangeError for a target outside 0 to C - 1.
    """
    reduction = resolve("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing is {label_smoothing}; expected a number of 0 to 1")
    if target.shape == input.shape and target._array.dtype.kind in "fV":
        return _with_probabilities(input, target, weight, reduction, label_smoothing)
    return _apply("cross_entropy", CrossEntropy(reduction, ignore_index, label_smoothing), input, target, weight)


def _with_probabilities(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    axis = 1 if input.ndim > 1 else 0
    if smoothing:
        target = target * (1 - smoothing) + smoothing / input.shape[axis]
    if weight is not None:
        target = target * weight.reshape((-1, *[1] * (input.ndim - 2)) if input.ndim > 1 else (-1,))  # type: ignore[attr-defined]
    losses = -reductions.sum(log_softmax(input, axis) * target, axis)
    if reduction == "none":
        return losses
    return losses.sum() / max(losses.numel(), 1) if reduction == "mean" else losses.sum()  # type: ignore[attr-defined]


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood of log-probabilities (C), (N, C) or (N, C, d1, ...) at class indices; see cross_entropy."""
    reduction = resolve("nll_loss", reduction, size_average, reduce)
    return _apply("nll_loss", NllLoss(reduction, ignore_index), input, target, weight)
