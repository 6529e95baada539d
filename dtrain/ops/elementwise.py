"""Arithmetic of two operands, comparisons and logic; broadcasting and promoting."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import promotion
from dtrain.errors import ArgumentError
from dtrain.ops._shape import unbroadcast


class Binary(Op):
    """Base of promoting operations on two operands. ``grad_a`` and ``grad_b`` give the local gradients."""

    promotes = True

    shape_a: Any = None  # the operands' shapes where they were broadcast, for the way back
    shape_b: Any = None

    def note(self, a: Any, b: Any, y: Any) -> Any:
        """Remember the shapes of operands that were broadcast to the shape of ``y``; returns ``y``."""
        shape = y.shape
        if a.__class__ is not b.__class__ or a.shape != b.shape:
            self.shape_a = getattr(a, "shape", shape)
            self.shape_b = getattr(b, "shape", shape)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        edges = self.edges
        ga = gb = None
        if edges[0] is not None:
            ga = self.grad_a(xp, g)
            if self.shape_a is not None:
                ga = unbroadcast(xp, ga, self.shape_a)
        if edges[1] is not None:
            gb = self.grad_b(xp, g)
            if self.shape_b is not None:
                gb = unbroadcast(xp, gb, self.shape_b)
        return ga, gb

    def grad_a(self, xp: Any, g: Any) -> Any:
        return g

    def grad_b(self, xp: Any, g: Any) -> Any:
        return g


class Add(Binary):
    """y = a + b."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        return self.note(a, b, a + b)


class Sub(Binary):
    """y = a - b."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        return self.note(a, b, xp.subtract(a, b))

    def grad_b(self, xp: Any, g: Any) -> Any:
        return -g


class Mul(Binary):
    """y = a * b."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        self.saved = (a, b)
        return self.note(a, b, a * b)

    def grad_a(self, xp: Any, g: Any) -> Any:
        return g * self.unpack(xp)[1]

    def grad_b(self, xp: Any, g: Any) -> Any:
        return g * self.unpack(xp)[0]


class Div(Binary):
    """y = a / b."""

    floats = True

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        self.saved = (a, b)
        return self.note(a, b, xp.true_divide(a, b))

    def grad_a(self, xp: Any, g: Any) -> Any:
        return g / self.unpack(xp)[1]

    def grad_b(self, xp: Any, g: Any) -> Any:
        a, b = self.unpack(xp)
        return -g * (a / b) / b  # b * b could underflow


class Pow(Binary):
    """y = a ** b, for tensors and numbers on either side."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        y = a * a if b.__class__ is int and b == 2 else xp.power(a, b)
        self.saved = (a, b, y)
        return self.note(a, b, y)

    def grad_a(self, xp: Any, g: Any) -> Any:
        a, b, _ = self.unpack(xp)
        if not hasattr(b, "shape"):
            return xp.zeros_like(a) * g if b == 0 else g * b * a ** (b - 1)
        zero = xp.constant(b) == 0
        return g * xp.where(zero, xp.zeros_like(a), b * a ** xp.where(zero, xp.ones_like(b), b - 1))

    def grad_b(self, xp: Any, g: Any) -> Any:
        a, b, y = self.unpack(xp)
        if not hasattr(a, "shape"):
            a = xp.ones_like(b) * a
        zero = (xp.constant(a) == 0)
        return g * y * xp.log(xp.where(zero, xp.ones_like(a), a))


class Extreme(Binary):
    """Base of maximum and minimum: the gradient goes to the chosen side, half each on ties."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        self.saved = (a, b)
        return self.note(a, b, getattr(xp, self.function)(a, b))

    def share(self, xp: Any, mine: Any, other: Any, dtype: Any) -> Any:
        mine, other = xp.constant(mine), xp.constant(other)
        better = mine > other if self.function == "maximum" else mine < other
        return xp.cast(better, dtype) + xp.cast(mine == other, dtype) * 0.5

    def grad_a(self, xp: Any, g: Any) -> Any:
        a, b = self.unpack(xp)
        return g * self.share(xp, a, b, g.dtype)

    def grad_b(self, xp: Any, g: Any) -> Any:
        a, b = self.unpack(xp)
        return g * self.share(xp, b, a, g.dtype)


class Maximum(Extreme):
    """y = max(a, b), NaN if either is."""

    function = "maximum"


class Minimum(Extreme):
    """y = min(a, b), NaN if either is."""

    function = "minimum"


class Where(Op):
    """y = a where condition, b elsewhere."""

    promotes = True

    def forward(self, xp: Any, condition: Any, a: Any, b: Any) -> Any:
        self.shape_a, self.shape_b = getattr(a, "shape", ()), getattr(b, "shape", ())
        self.saved = (condition,)
        return xp.where(condition, a, b)

    def backward(self, xp: Any, g: Any) -> tuple:
        (condition,) = self.unpack(xp)
        zero = xp.zeros_like(g)
        ga = unbroadcast(xp, xp.where(condition, g, zero), self.shape_a) if self.needs(1) else None
        gb = unbroadcast(xp, xp.where(condition, zero, g), self.shape_b) if self.needs(2) else None
        return None, ga, gb


class Lerp(Op):
    """y = a + weight * (b - a)."""

    promotes = True

    def forward(self, xp: Any, a: Any, b: Any, weight: Any) -> Any:
        self.saved = (a, b, weight)
        return a + weight * (b - a)

    def backward(self, xp: Any, g: Any) -> tuple:
        a, b, w = self.unpack(xp)
        return (
            unbroadcast(xp, g * (1 - w), a.shape) if self.needs(0) else None,
            unbroadcast(xp, g * w, b.shape) if self.needs(1) else None,
            unbroadcast(xp, g * (b - a), w.shape) if self.needs(2) else None,
        )


class Plain(Op):
    """A promoting operation without gradient, by the name of its array function: comparisons, logic, bits, remainders."""

    promotes = True
    differentiable = False

    def __init__(self, function: str) -> None:
        self.function = function

    def name(self) -> str:  # type: ignore[override]
        return self.function

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        return getattr(xp, self.function)(a, b)


class Remainder(Binary):
    """y = a mod b with the sign of b; the gradient to b is minus the floored quotient."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        _refuse_zero(xp, a, b, self.name())
        self.saved = (a, b)
        return self.note(a, b, xp.remainder(a, b))

    def grad_b(self, xp: Any, g: Any) -> Any:
        a, b = self.unpack(xp)
        return -g * xp.floor_divide(xp.constant(a), xp.constant(b))


class FloorDivide(Binary):
    """y = a / b rounded towards minus infinity; flat everywhere, so its gradient is 0."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        _refuse_zero(xp, a, b, self.name())
        return self.note(a, b, xp.floor_divide(a, b))

    def grad_a(self, xp: Any, g: Any) -> Any:
        return xp.zeros_like(g)

    grad_b = grad_a


class TruncDivide(FloorDivide):
    """y = a / b rounded towards zero."""

    def forward(self, xp: Any, a: Any, b: Any) -> Any:
        if not _whole(a, b):
            return self.note(a, b, xp.trunc(xp.true_divide(a, b)))
        _refuse_zero(xp, a, b, self.name())
        quotient = xp.floor_divide(a, b)
        return self.note(a, b, quotient + ((quotient < 0) & (quotient * b != a)))


def _whole(a: Any, b: Any) -> bool:
    """Whether promoted operands, at least one of them an array, are integers."""
    return (a if hasattr(a, "dtype") else b).dtype.kind in "iu"


def _refuse_zero(xp: Any, a: Any, b: Any, name: str) -> None:
    """Raise ArgumentError for an integer divisor of 0 on the CPU, where NumPy would give 0; a GPU gives some number, as in PyTorch."""
    if xp.name == "numpy" and _whole(a, b) and not xp.all(b):
        raise ArgumentError(f"{name}: integer division by zero; expected divisors other than 0, or floating point operands")


def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input + alpha * other``, broadcasting and promoting."""
    return apply(Add(), input, other if alpha == 1 else other * alpha)


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input - alpha * other``, broadcasting and promoting."""
    return apply(Sub(), input, other if alpha == 1 else other * alpha)


def mul(input: Any, other: Any) -> Tensor:
    """``input * other``, broadcasting and promoting."""
    return apply(Mul(), input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; ``rounding_mode`` None (true division), "trunc" or "floor"."""
    if rounding_mode not in _DIVISIONS:
        raise ArgumentError(f"div: rounding_mode is {rounding_mode!r}; expected None, 'trunc' or 'floor'")
    return apply(_DIVISIONS[rounding_mode](), input, other)


_DIVISIONS: dict[str | None, type[Binary]] = {None: Div, "trunc": TruncDivide, "floor": FloorDivide}


def floor_divide(input: Any, other: Any) -> Tensor:
    """The quotient rounded towards minus infinity; integers stay integers. Its gradient is 0."""
    return apply(FloorDivide(), input, other)


def remainder(input: Any, other: Any) -> Tensor:
    """Python's modulus: the result has the sign of ``other``."""
    return apply(Remainder(), input, other)


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``, for tensors and numbers on either side."""
    return apply(Pow(), input, exponent)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise maximum; NaN wins; ties share the gradient."""
    return apply(Maximum(), input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise minimum; NaN wins; ties share the gradient."""
    return apply(Minimum(), input, other)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the bool ``condition`` holds, else ``other``; with the condition alone, its nonzero indices."""
    if input is None and other is None:
        from dtrain.ops.order import nonzero

        return nonzero(condition, as_tuple=True)
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        input = condition.new_tensor(input, dtype=promotion.result_type(input, other))  # type: ignore[attr-defined]
    return apply(Where(), condition, input, other)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)``."""
    return apply(Lerp(), input, end, weight)


def _plain(name: str, function: str, text: str) -> Any:
    def call(input: Any, other: Any) -> Tensor:
        return apply(Plain(function), input, other)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = text
    return call


eq = _plain("eq", "equal", "input == other, elementwise, as bool.")
ne = _plain("ne", "not_equal", "input != other, elementwise, as bool.")
lt = _plain("lt", "less", "input < other, elementwise, as bool.")
le = _plain("le", "less_equal", "input <= other, elementwise, as bool.")
gt = _plain("gt", "greater", "input > other, elementwise, as bool.")
ge = _plain("ge", "greater_equal", "input >= other, elementwise, as bool.")
logical_and = _plain("logical_and", "logical_and", "Both nonzero, as bool.")
logical_or = _plain("logical_or", "logical_or", "Either nonzero, as bool.")
logical_xor = _plain("logical_xor", "logical_xor", "Exactly one nonzero, as bool.")
bitwise_and = _plain("bitwise_and", "bitwise_and", "Bitwise (or logical, for bool) and.")
bitwise_or = _plain("bitwise_or", "bitwise_or", "Bitwise (or logical, for bool) or.")
bitwise_xor = _plain("bitwise_xor", "bitwise_xor", "Bitwise (or logical, for bool) exclusive or.")


def add_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input += alpha * other`` in place."""
    return apply_(Add(), input, other if alpha == 1 else other * alpha)


def sub_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input -= alpha * other`` in place."""
    return apply_(Sub(), input, other if alpha == 1 else other * alpha)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    return input + tensor1 * tensor2 * value


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    return input + tensor1 / tensor2 * value
