"""Losses between an input and a target of one size: squared, absolute, Huber's, binary cross entropy, Kullback-Leibler."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.ops import unary
from dtrain.ops._loss import constant, floating, reduced, resolve, same_size
from dtrain.ops._shape import unbroadcast
from dtrain.ops.activation import Softplus


class PairLoss(Op):
    """Base: value(x, t) of each element, reduced; ``slope_x`` and ``slope_t`` are its derivatives.

    Further inputs (weights) come after and have no gradient.
    """

    promotes = True

    def __init__(self, reduction: str) -> None:
        self.reduction = reduction

    def forward(self, xp: Any, x: Any, t: Any, *more: Any) -> Any:
        self.saved = (x, t, *more)
        return reduced(xp, self.value(xp, x, t, *more), self.reduction)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, t, *more = self.unpack(xp)
        if self.reduction == "mean":
            count = 1
            for n in x.shape:
                count *= n
            g = g / max(count, 1)
        gx = unbroadcast(xp, self.slope_x(xp, x, t, *more) * g, tuple(x.shape)) if self.needs(0) else None
        gt = unbroadcast(xp, self.slope_t(xp, x, t, *more) * g, tuple(t.shape)) if self.needs(1) else None
        return (gx, gt, *[None] * len(more))

    def slope_t(self, xp: Any, x: Any, t: Any, *more: Any) -> Any:
        """By default the loss is a function of x - t."""
        return -self.slope_x(xp, x, t, *more)


class SquaredError(PairLoss):
    """(x - t)^2."""

    def value(self, xp: Any, x: Any, t: Any) -> Any:
        d = x - t
        d *= d
        return d

    def slope_x(self, xp: Any, x: Any, t: Any) -> Any:
        return (x - t) * 2


class AbsoluteError(PairLoss):
    """abs(x - t)."""

    def value(self, xp: Any, x: Any, t: Any) -> Any:
        return xp.abs(x - t)

    def slope_x(self, xp: Any, x: Any, t: Any) -> Any:
        return xp.sign(x - t)


class HuberError(PairLoss):
    """scale * (d^2 / 2 within delta, delta * (abs(d) - delta/2) beyond), d = x - t (Huber, 1964)."""

    def __init__(self, reduction: str, delta: float, scale: float) -> None:
        self.reduction, self.delta, self.scale = reduction, delta, scale

    def value(self, xp: Any, x: Any, t: Any) -> Any:
        d = xp.abs(x - t)
        near = xp.minimum(d, self.delta)
        return (d - near * 0.5) * near * self.scale  # beyond: (d - delta/2) * delta; within: d*d/2

    def slope_x(self, xp: Any, x: Any, t: Any) -> Any:
        return xp.clip(x - t, -self.delta, self.delta) * self.scale


class BinaryCrossEntropy(PairLoss):
    """-w * (t * log(x) + (1 - t) * log(1 - x)), the logarithms not below -100."""

    def value(self, xp: Any, x: Any, t: Any, w: Any) -> Any:
        import numpy as np

        with np.errstate(divide="ignore"):
            losses = (t - 1) * xp.maximum(xp.log1p(-x), -100) - t * xp.maximum(xp.log(x), -100)
        return losses if w is None else losses * w

    def slope_x(self, xp: Any, x: Any, t: Any, w: Any) -> Any:
        slope = (x - t) / xp.maximum((1 - x) * x, 1e-12)
        return slope if w is None else slope * w

    def slope_t(self, xp: Any, x: Any, t: Any, w: Any) -> Any:
        slope = xp.maximum(xp.log1p(-x), -100) - xp.maximum(xp.log(x), -100)
        return slope if w is None else slope * w


class BinaryCrossEntropyWithLogits(PairLoss):
    """w * ((1 - t) * x + (1 + (p - 1) * t) * log(1 + exp(-x))), p the weight of positive targets."""

    def value(self, xp: Any, x: Any, t: Any, w: Any, p: Any) -> Any:
        soft = xp.log1p(xp.exp(-xp.abs(x)))
        soft += xp.maximum(-x, 0)
        if p is not None:
            soft *= 1 + (p - 1) * t
        losses = x - x * t
        losses += soft
        return losses if w is None else losses * w

    def slope_x(self, xp: Any, x: Any, t: Any, w: Any, p: Any) -> Any:
        s = xp.run(unary.Sigmoid(), x)
        slope = s - t if p is None else (1 - t) - (1 + (p - 1) * t) * (1 - s)
        return slope if w is None else slope * w

    def slope_t(self, xp: Any, x: Any, t: Any, w: Any, p: Any) -> Any:
        slope = -x if p is None else (p - 1) * xp.run(Softplus(1.0, float("inf")), -x) - x
        return slope if w is None else slope * w


class Divergence(PairLoss):
    """t * (log(t) - x) for log-probabilities x, or exp(t) * (t - x) for a target of logarithms."""

    def __init__(self, reduction: str, log_target: bool) -> None:
        self.reduction, self.log_target = reduction, log_target

    def value(self, xp: Any, x: Any, t: Any) -> Any:
        if self.log_target:
            return xp.exp(t) * (t - x)
        return t * xp.log(xp.where(t > 0, t, 1)) - t * x

    def slope_x(self, xp: Any, x: Any, t: Any) -> Any:
        return -(xp.exp(t) if self.log_target else t) + xp.zeros_like(x)

    def slope_t(self, xp: Any, x: Any, t: Any) -> Any:
        if self.log_target:
            return xp.exp(t) * (t - x + 1)
        inside = xp.constant(t) > 0
        return xp.where(inside, xp.log(xp.where(inside, t, xp.ones_like(t))) + 1, xp.zeros_like(t)) - x


def _weighted(op: PairLoss, input: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """The sum of weight times loss, for the mean divided by the sum of the weights."""
    same_size(type(op).__name__, input, weight)
    op.reduction = "none"
    losses = apply(op, input, target) * weight
    if reduction == "none":
        return losses
    return losses.sum() / weight.sum() if reduction == "mean" else losses.sum()  # type: ignore[attr-defined]


def _pair(name: str, op: PairLoss, input: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    same_size(name, input, target)
    return apply(op, input, target) if weight is None else _weighted(op, input, target, weight, op.reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The squared difference. Raises ShapeError unless the shapes are equal; ``weight`` has their shape."""
    return _pair("mse_loss", SquaredError(resolve("mse_loss", reduction, size_average, reduce)), input, target, weight)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The absolute difference. Raises ShapeError unless the shapes are equal; ``weight`` has their shape."""
    return _pair("l1_loss", AbsoluteError(resolve("l1_loss", reduction, size_average, reduce)), input, target, weight)


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """The absolute difference less beta/2, and within ``beta`` the square over 2 beta. Raises ArgumentError for a negative beta."""
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: beta is {beta}; expected 0 or more")
    reduction = resolve("smooth_l1_loss", reduction, size_average, reduce)
    op = HuberError(reduction, beta, 1 / beta) if beta else AbsoluteError(reduction)
    return _pair("smooth_l1_loss", op, input, target, None)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Half the squared difference within ``delta``, linear beyond. Raises ArgumentError unless delta > 0."""
    if delta <= 0:
        raise ArgumentError(f"huber_loss: delta is {delta}; expected a number above 0")
    return _pair("huber_loss", HuberError(resolve("huber_loss", reduction, None, None), delta, 1.0), input, target, weight)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross entropy of probabilities ``input`` and targets, both of [0, 1]; ``weight`` broadcasts. Raises ArgumentError outside."""
    same_size("binary_cross_entropy", input, target)
    floating("binary_cross_entropy", input, target)
    raw = input._array
    if raw.size and not input.is_meta and not bool(((raw >= 0) & (raw <= 1)).all()):
        raise ArgumentError(
            f"binary_cross_entropy expects probabilities of 0 to 1, got {float(raw.min())} to {float(raw.max())}; "
            "use binary_cross_entropy_with_logits on scores, or sigmoid first"
        )
    constant("binary_cross_entropy", "weight", weight)
    op = BinaryCrossEntropy(resolve("binary_cross_entropy", reduction, size_average, reduce))
    return apply(op, input, target, weight)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Cross entropy of scores (before a sigmoid) and targets of [0, 1]; ``weight`` and ``pos_weight`` broadcast."""
    same_size("binary_cross_entropy_with_logits", input, target)
    floating("binary_cross_entropy_with_logits", input, target)
    constant("binary_cross_entropy_with_logits", "weight", weight)
    constant("binary_cross_entropy_with_logits", "pos_weight", pos_weight)
    op = BinaryCrossEntropyWithLogits(resolve("binary_cross_entropy_with_logits", reduction, size_average, reduce))
    return apply(op, input, target, weight, pos_weight)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input) for log-probabilities ``input``; "batchmean" divides the sum by the size of dim 0."""
    same_size("kl_div", input, target)
    reduction = resolve("kl_div", reduction, size_average, reduce, ("batchmean",))
    out = apply(Divergence("sum" if reduction == "batchmean" else reduction, log_target), input, target)
    return out / input.shape[0] if reduction == "batchmean" and input.ndim else out
