"""Functions of one operand, elementwise."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import promotion
from dtrain.errors import ArgumentError
from dtrain.ops._pointwise import Pointwise

FUNCTIONS: dict[str, Callable[..., Tensor]] = {}


class Unary(Op):
    """y = function(x), by the array function's name. Subclasses give the derivative from x or from y."""

    function = ""
    floats = True
    saves = "x"  # x, y or nothing

    def forward(self, xp: Any, x: Any) -> Any:
        y = getattr(xp, self.function)(x)
        self.saved = (x,) if self.saves == "x" else (y,) if self.saves == "y" else ()
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        return (self.derivative(xp, g, *self.unpack(xp)),)


def _unary(name: str, function: str, saves: str, derivative: Callable, text: str, floats: bool = True) -> Callable[..., Tensor]:
    """A family member in one line: its array function, what it saves and ``derivative(xp, g, saved)``."""
    kind = type(
        name.capitalize(),
        (Unary,),
        {"function": function, "saves": saves, "derivative": staticmethod(derivative), "floats": floats, "__doc__": text},
    )

    def call(input: Tensor) -> Tensor:
        return apply(kind(), input)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = text
    FUNCTIONS[name] = call
    return call


def _zero(xp: Any, g: Any, *saved: Any) -> Any:
    return xp.zeros_like(g)


neg = _unary("neg", "negative", "", lambda xp, g: -g, "-input.", floats=False)
abs = _unary("abs", "abs", "x", lambda xp, g, x: g * xp.sign(xp.constant(x)), "The absolute value.", floats=False)
exp = _unary("exp", "exp", "y", lambda xp, g, y: g * y, "e to the input.")
expm1 = _unary("expm1", "expm1", "y", lambda xp, g, y: g * (y + 1), "exp(input) - 1, exact near 0.")
log = _unary("log", "log", "x", lambda xp, g, x: g / x, "The natural logarithm.")
log2 = _unary("log2", "log2", "x", lambda xp, g, x: g / (x * 0.6931471805599453), "The logarithm to base 2.")
log10 = _unary("log10", "log10", "x", lambda xp, g, x: g / (x * 2.302585092994046), "The logarithm to base 10.")
log1p = _unary("log1p", "log1p", "x", lambda xp, g, x: g / (x + 1), "log(1 + input), exact near 0.")
sqrt = _unary("sqrt", "sqrt", "y", lambda xp, g, y: g / (y * 2), "The square root.")
square = _unary("square", "square", "x", lambda xp, g, x: g * x * 2, "input * input.", floats=False)
sin = _unary("sin", "sin", "x", lambda xp, g, x: g * xp.cos(x), "The sine, of radians.")
cos = _unary("cos", "cos", "x", lambda xp, g, x: -g * xp.sin(x), "The cosine, of radians.")
tan = _unary("tan", "tan", "y", lambda xp, g, y: g * (1 + y * y), "The tangent, of radians.")
asin = _unary("asin", "arcsin", "x", lambda xp, g, x: g / xp.sqrt(1 - x * x), "The arcsine, in radians.")
acos = _unary("acos", "arccos", "x", lambda xp, g, x: -g / xp.sqrt(1 - x * x), "The arccosine, in radians.")
atan = _unary("atan", "arctan", "x", lambda xp, g, x: g / (1 + x * x), "The arctangent, in radians.")
sinh = _unary("sinh", "sinh", "x", lambda xp, g, x: g * xp.cosh(x), "The hyperbolic sine.")
cosh = _unary("cosh", "cosh", "x", lambda xp, g, x: g * xp.sinh(x), "The hyperbolic cosine.")
tanh = _unary("tanh", "tanh", "y", lambda xp, g, y: g * (1 - y * y), "The hyperbolic tangent.")
floor = _unary("floor", "floor", "", _zero, "The largest whole number not above.", floats=False)
ceil = _unary("ceil", "ceil", "", _zero, "The smallest whole number not below.", floats=False)
trunc = _unary("trunc", "trunc", "", _zero, "The whole part.", floats=False)
sign = _unary("sign", "sign", "", _zero, "-1, 0 or 1.", floats=False)


class Reciprocal(Op):
    """y = 1 / x."""

    floats = True

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.true_divide(1, x)
        self.saved = (y,)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        (y,) = self.unpack(xp)
        return (-g * y * y,)


class Rsqrt(Op):
    """y = 1 / sqrt(x)."""

    floats = True

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.true_divide(1, xp.sqrt(x))
        self.saved = (y,)
        return y

    def backward(self, xp: Any, g: Any) -> Any:
        (y,) = self.unpack(xp)
        return (g * y * y * y * -0.5,)


class Sigmoid(Pointwise):
    """y = 1 / (1 + exp(-x)); where exp overflows, 0 is right."""

    floats = True
    saves = "y"

    def value(self, xp: Any, x: Any) -> Any:
        y = xp.exp(-x)
        y += 1
        return xp.true_divide(1, y, out=y if y.__class__ is xp.ndarray else None)

    def slope(self, xp: Any, g: Any, y: Any) -> Any:
        return g * y * (1 - y)


class Clamp(Op):
    """y = x limited to [low, high]; the gradient passes inside and on the limits."""

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = low, high

    def forward(self, xp: Any, x: Any) -> Any:
        self.saved = (x,)
        return xp.clip(x, self.low, self.high)

    def backward(self, xp: Any, g: Any) -> Any:
        x = xp.constant(self.unpack(xp)[0])
        inside = x == x if self.low is None else x >= self.low
        if self.high is not None:
            inside = inside & (x <= self.high)
        return (g * xp.cast(inside, g.dtype),)


class Predicate(Op):
    """A question to each element, answered in bool."""

    differentiable = False

    def __init__(self, function: str) -> None:
        self.function = function

    def forward(self, xp: Any, x: Any) -> Any:
        return getattr(xp, self.function)(x)


class Round(Op):
    """y = x rounded half to even, to ``decimals`` places."""

    def __init__(self, decimals: int) -> None:
        self.decimals = decimals

    def forward(self, xp: Any, x: Any) -> Any:
        return xp.round(x, self.decimals)

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.zeros_like(g),)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return apply(Reciprocal(), input)


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return apply(Rsqrt(), input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input))."""
    return apply(Sigmoid(), input)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Round half to even."""
    return apply(Round(decimals), input)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limit to [min, max]; either may be None, a number or a tensor."""
    if min is None and max is None:
        raise ArgumentError("clamp needs min, max or both; got neither")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        from dtrain.ops import elementwise

        out = input if min is None else elementwise.maximum(input, min)
        return out if max is None else elementwise.minimum(out, max)
    if input._array.dtype.kind in "iub" and (isinstance(min, float) or isinstance(max, float)):
        input = input.to(promotion.result_type(input._array, 0.5))  # type: ignore[attr-defined]
    return apply(Clamp(min, max), input)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Limit from below."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Limit from above."""
    return clamp(input, max=max)


def _predicate(name: str, function: str, text: str) -> Callable[..., Tensor]:
    def call(input: Tensor) -> Tensor:
        return apply(Predicate(function), input)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = text
    FUNCTIONS[name] = call
    return call


isnan = _predicate("isnan", "isnan", "True where NaN.")
isinf = _predicate("isinf", "isinf", "True where infinite.")
isfinite = _predicate("isfinite", "isfinite", "True where neither NaN nor infinite.")
logical_not = _predicate("logical_not", "logical_not", "True where zero.")
bitwise_not = _predicate("bitwise_not", "invert", "All bits flipped; logical not for bool.")
FUNCTIONS.update(reciprocal=reciprocal, rsqrt=rsqrt, sigmoid=sigmoid, round=round, clamp=clamp, clamp_min=clamp_min, clamp_max=clamp_max)
