"""Smooth activations: gelu, silu, softplus, elu and their kin. Those made of straight pieces are in ``piecewise.py``."""

from __future__ import annotations

import math
from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.backend import kernels, native
from dtrain.errors import ArgumentError
from dtrain.ops import unary
from dtrain.ops._pointwise import Pointwise, activate
from dtrain.ops._shape import norm_dim
from dtrain.ops.join import chunk
from dtrain.ops.special import Erf

_FUSED: dict[str, Any] = {"numpy": native, "cupy": kernels}
_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _sigmoid(xp: Any, x: Any) -> Any:
    return xp.run(unary.Sigmoid(), x)


class Gelu(Pointwise):
    """y = x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, 2016)."""

    approximate = "none"

    def backward(self, xp: Any, g: Any) -> tuple:
        fused = _FUSED.get(xp.name)
        if fused is not None:
            out = fused.gelu_backward(g, self.unpack(xp)[0], self.approximate)
            if out is not None:
                return (out,)
        return super().backward(xp, g)

    def value(self, xp: Any, x: Any) -> Any:
        y = xp.run(Erf(), x * _ROOT_HALF)
        y += 1
        y *= x
        y *= 0.5
        return y

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        below = xp.run(Erf(), x * _ROOT_HALF) * 0.5 + 0.5
        return g * (below + x * xp.exp(x * x * -0.5) * _DENSITY)


class GeluTanh(Gelu):
    """y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), the paper's approximation of gelu."""

    approximate = "tanh"

    def value(self, xp: Any, x: Any) -> Any:
        y = xp.tanh(_inner(x))
        y += 1
        y *= x
        y *= 0.5
        return y

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        t = xp.tanh(_inner(x))
        steep = (x * x * (3 * _TANH_CUBE) + 1) * _TANH_SCALE
        return g * ((1 + t) + x * (1 - t * t) * steep) * 0.5


def _fused_gelu(op: Gelu, xp: Any, x: Any) -> Any:
    op.saved = (x,)
    return _FUSED[xp.name].gelu(x, op.approximate)


Gelu.kernels = dict.fromkeys(_FUSED, _fused_gelu)


def _inner(x: Any) -> Any:
    return (x * x * _TANH_CUBE + 1) * x * _TANH_SCALE


class Silu(Pointwise):
    """y = x * sigmoid(x)."""

    def value(self, xp: Any, x: Any) -> Any:
        return x * _sigmoid(xp, x)

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        s = _sigmoid(xp, x)
        return g * s * (1 + x * (1 - s))


class Softplus(Pointwise):
    """y = log(1 + exp(beta * x)) / beta, and x where beta * x exceeds the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def value(self, xp: Any, x: Any) -> Any:
        z = x * self.beta
        y = (xp.log1p(xp.exp(-xp.abs(z))) + xp.maximum(z, 0)) / self.beta
        return xp.where(z > self.threshold, x, y)

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        z = x * self.beta
        return xp.where(xp.constant(z) > self.threshold, g, g * _sigmoid(xp, z))


class LogSigmoid(Pointwise):
    """y = log(sigmoid(x))."""

    def value(self, xp: Any, x: Any) -> Any:
        return xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        return g * _sigmoid(xp, -x)


class Mish(Pointwise):
    """y = x * tanh(softplus(x))."""

    def value(self, xp: Any, x: Any) -> Any:
        return x * xp.tanh(xp.run(Softplus(), x))

    def slope(self, xp: Any, g: Any, x: Any) -> Any:
        t = xp.tanh(xp.run(Softplus(), x))
        return g * (t + x * (1 - t * t) * _sigmoid(xp, x))


class Elu(Pointwise):
    """y = scale * x above 0, scale * alpha * (exp(rate * x) - 1) below."""

    saves = "xy"

    def __init__(self, alpha: float, scale: float = 1.0, rate: float = 1.0) -> None:
        self.alpha, self.scale, self.rate = alpha, scale, rate

    def value(self, xp: Any, x: Any) -> Any:
        y = xp.expm1(xp.minimum(x, 0) * self.rate)
        y *= self.alpha * self.scale
        y += xp.maximum(x, 0) * self.scale
        return y

    def slope(self, xp: Any, g: Any, x: Any, y: Any) -> Any:
        above = xp.cast(xp.constant(x) > 0, g.dtype)
        return g * (above * self.scale + (1 - above) * (y + self.alpha * self.scale) * self.rate)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; ``approximate="tanh"`` for the paper's approximation."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate is {approximate!r}; expected 'none' or 'tanh'")
    return activate(Gelu() if approximate == "none" else GeluTanh(), input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), also called swish."""
    return activate(Silu(), input, inplace)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds ``threshold``."""
    return activate(Softplus(beta, threshold), input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return activate(LogSigmoid(), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return activate(Mish(), input, inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below."""
    return activate(Elu(alpha), input, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalising elu (Klambauer and others, 2017)."""
    return activate(Elu(_SELU_ALPHA, _SELU_SCALE), input, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha * (exp(x / alpha) - 1) below. Raises ArgumentError for alpha 0."""
    if alpha == 0:
        raise ArgumentError("celu: alpha must not be 0; for x above 0 and 0 below use relu")
    return activate(Elu(alpha, rate=1 / alpha), input, inplace)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along ``dim`` times the sigmoid of the second. Raises ArgumentError for an odd size."""
    if not input.ndim or input.shape[norm_dim(dim, input.ndim)] % 2:
        raise ArgumentError(f"glu halves dim {dim}, whose size must be even; got shape {tuple(input.shape)}")
    value, gate = chunk(input, 2, dim)
    return value * unary.sigmoid(gate)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x))."""
    return input / (unary.abs(input) + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - unary.tanh(input)
