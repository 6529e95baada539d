"""Activations made of straight pieces: relu and its kin. Their second derivative is 0 (hardswish's is not)."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ShapeError
from dtrain.ops._pointwise import Pointwise, activate
from dtrain.ops._shape import unbroadcast

# Multiplying with a bool mask costs an eighth of choosing with xp.where, whose branch is mispredicted at random signs.


class Relu(Op):
    """y = max(x, 0)."""

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.asarray(xp.maximum(x, 0))
        self.saved = (y,)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        (y,) = self.unpack(xp)
        return (g * (xp.constant(y) > 0),)


class LeakyRelu(Pointwise):
    """y = x above 0, slope * x below."""

    def __init__(self, below: float) -> None:
        self.below = below

    def value(self, xp: Any, x: Any) -> Any:
        return xp.maximum(x, x * self.below) if self.below <= 1 else xp.minimum(x, x * self.below)

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        above = xp.cast(xp.constant(x) > 0, g.dtype)
        return g * (above + (1 - above) * self.below)


class Prelu(Op):
    """y = x above 0, w * x below, w broadcasting."""

    def forward(self, xp: Any, x: Any, w: Any) -> Any:
        self.saved = (x, w)
        return xp.maximum(x, 0) + w * xp.minimum(x, 0)

    def backward(self, xp: Any, g: Any) -> tuple:
        x, w = self.unpack(xp)
        above = xp.cast(xp.constant(x) > 0, g.dtype)
        below = 1 - above
        gx = g * (above + below * w) if self.needs(0) else None
        gw = unbroadcast(xp, g * x * below, tuple(w.shape)) if self.needs(1) else None
        return gx, gw


class Hardtanh(Pointwise):
    """y = scale * (x + shift) limited to [low, high]; the gradient passes strictly inside."""

    def __init__(self, low: float, high: float, scale: float = 1.0, shift: float = 0.0) -> None:
        self.low, self.high, self.scale, self.shift = low, high, scale, shift

    saves = "y"

    def value(self, xp: Any, x: Any) -> Any:
        inner = x if self.scale == 1 and self.shift == 0 else (x + self.shift) * self.scale
        return xp.clip(inner, self.low, self.high)

    def slope(self, xp: Any, g: Any, y: Any) -> Any:
        y = xp.constant(y)
        inside = g * ((y > self.low) & (y < self.high))
        return inside if self.scale == 1 else inside * self.scale


class Hardswish(Pointwise):
    """y = x * min(max(x + 3, 0), 6) / 6."""

    def value(self, xp: Any, x: Any) -> Any:
        return x * xp.clip(x + 3, 0, 6) / 6

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        fixed = xp.constant(x)
        inside = xp.cast((fixed > -3) & (fixed < 3), g.dtype)
        return g * (inside * (x / 3 + 0.5) + xp.cast(fixed >= 3, g.dtype))


class Shrink(Pointwise):
    """Zero within [-limit, limit]; outside x itself (hard), or x moved towards zero by the limit (soft)."""

    def __init__(self, limit: float, soft: bool) -> None:
        self.limit, self.soft = limit, soft

    def value(self, xp: Any, x: Any) -> Any:
        return x - xp.clip(x, -self.limit, self.limit) if self.soft else x * self._outside(xp, x)

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        return g * self._outside(xp, xp.constant(x))

    def _outside(self, xp: Any, x: Any) -> Any:
        return (x > self.limit) | (x < -self.limit)


class Threshold(Pointwise):
    """y = x above the threshold, a value elsewhere."""

    def __init__(self, threshold: float, filling: float) -> None:
        self.threshold, self.filling = threshold, filling

    def value(self, xp: Any, x: Any) -> Any:
        return xp.where(x > self.threshold, x, x.dtype.type(self.filling))

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        return g * (xp.constant(x) > self.threshold)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return apply_(Relu(), input) if inplace else apply(Relu(), input)


def relu_(input: Tensor) -> Tensor:
    """relu in place."""
    return apply_(Relu(), input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x above 0, negative_slope * x below."""
    return activate(LeakyRelu(negative_slope), input, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x above 0, weight * x below; weight has one element, or one a channel (dim 1). Raises ShapeError otherwise."""
    if weight.ndim > 1 or (weight.numel() != 1 and (input.ndim < 2 or weight.numel() != input.shape[1])):
        channels = input.shape[1] if input.ndim > 1 else 1
        raise ShapeError(f"prelu expects a weight of shape (1,) or ({channels},) for input {tuple(input.shape)}, got {tuple(weight.shape)}")
    if weight.numel() != 1:
        weight = weight.reshape((-1, *[1] * (input.ndim - 2)))  # type: ignore[attr-defined]
    elif not input.ndim:
        weight = weight.reshape(())  # type: ignore[attr-defined]
    return apply(Prelu(), input, weight)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]."""
    return activate(Hardtanh(min_val, max_val), input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6]."""
    return activate(Hardtanh(0.0, 6.0), input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """(x + 3) / 6 limited to [0, 1]."""
    return activate(Hardtanh(0.0, 1.0, 1 / 6, 3.0), input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    return activate(Hardswish(), input, inplace)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, 0 within."""
    return activate(Shrink(lambd, soft=True), input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], 0 within."""
    return activate(Shrink(lambd, soft=False), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x above ``threshold``, ``value`` elsewhere."""
    return activate(Threshold(threshold, value), input, inplace)
