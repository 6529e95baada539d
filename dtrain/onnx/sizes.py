"""Sizes that remember where they came from, so that ``x.shape[0] * 2`` in a model stays a formula in the export."""

from __future__ import annotations

from operator import floordiv
from typing import Any, Callable


class Dim(int):
    """An int with the expression it stands for: this run's value, and ``others``, those of the runs at other sizes.

    ``expr`` is ``("dim", tensor, axis)`` or ``(operator, left, right)`` with Dims or ints inside. Arithmetic computes all
    values, so that a formula that holds at one size only is noticed where its number is used.
    """

    expr: tuple
    others: tuple

    def __new__(cls, value: int, others: tuple, expr: tuple) -> "Dim":
        made = int.__new__(cls, value)
        made.others, made.expr = others, expr
        return made

    def __add__(self, b: Any) -> Any:
        return _combine("Add", self, b, int.__add__)

    def __radd__(self, a: Any) -> Any:
        return _combine("Add", a, self, int.__add__)

    def __sub__(self, b: Any) -> Any:
        return _combine("Sub", self, b, int.__sub__)

    def __rsub__(self, a: Any) -> Any:
        return _combine("Sub", a, self, int.__sub__)

    def __mul__(self, b: Any) -> Any:
        return _combine("Mul", self, b, int.__mul__)

    def __rmul__(self, a: Any) -> Any:
        return _combine("Mul", a, self, int.__mul__)

    def __floordiv__(self, b: Any) -> Any:
        return _combine("Div", self, b, floordiv)

    def __rfloordiv__(self, a: Any) -> Any:
        return _combine("Div", a, self, floordiv)

    def __mod__(self, b: Any) -> Any:
        return _combine("Mod", self, b, int.__mod__)

    def __rmod__(self, a: Any) -> Any:
        return _combine("Mod", a, self, int.__mod__)

    def __divmod__(self, b: Any) -> Any:
        return self // b, self % b

    def __neg__(self) -> Any:
        return _combine("Sub", 0, self, int.__sub__)

    def __pos__(self) -> "Dim":
        return self

    def __index__(self) -> int:
        return int(self)

    def __reduce__(self) -> tuple:
        return int, (int(self),)


_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}  # right operands that change nothing


def _combine(name: str, a: Any, b: Any, compute: Callable) -> Any:
    if not isinstance(a, int) or not isinstance(b, int) or isinstance(a, bool) or isinstance(b, bool):
        return NotImplemented
    if type(b) is int and _NEUTRAL.get(name) == b:
        return a
    if type(a) is int and name in ("Add", "Mul") and _NEUTRAL[name] == a:
        return b
    runs = range(len((a if isinstance(a, Dim) else b).others))
    others = []
    for x, y in [(other_value(a, i), other_value(b, i)) for i in runs]:
        undefined = x is None or y is None or name in ("Div", "Mod") and y == 0
        others.append(None if undefined else compute(x, y))
    return Dim(compute(int(a), int(b)), tuple(others), (name, a, b))


def other_value(value: Any, run: int) -> Any:
    """``value`` (a number, or nested tuples, lists and slices of them) as in a run at other sizes, in plain tuples and ints."""
    if isinstance(value, (tuple, list)):
        return tuple([other_value(v, run) for v in value])
    if isinstance(value, slice):
        return slice, other_value(value.start, run), other_value(value.stop, run), other_value(value.step, run)
    return value.others[run] if isinstance(value, Dim) else value


def agree(a: int, b: int) -> bool:
    """Whether two sizes are equal, in this run and in those at other sizes."""
    runs = len(a.others if isinstance(a, Dim) else b.others if isinstance(b, Dim) else ())
    return int(a) == int(b) and all(other_value(a, i) == other_value(b, i) for i in range(runs))


def same(a: Any, b: Any) -> bool:
    """Whether two sizes are the same formula: equal whatever the sizes are."""
    if not isinstance(a, Dim) or not isinstance(b, Dim):
        return type(a) is type(b) and a == b
    if a.expr[0] == "dim" or b.expr[0] == "dim":
        return a.expr[0] == b.expr[0] and a.expr[1] is b.expr[1] and a.expr[2] == b.expr[2]
    return a.expr[0] == b.expr[0] and same(a.expr[1], b.expr[1]) and same(a.expr[2], b.expr[2])


def plain(value: Any) -> Any:
    """``value`` with ints for the Dims in it."""
    if isinstance(value, (tuple, list)) and is_dynamic(value):
        return type(value)([plain(v) for v in value])
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    return int(value) if isinstance(value, Dim) else value


def is_dynamic(value: Any) -> bool:
    """Whether a Dim occurs in ``value`` (an int, or nested tuples, lists and slices of them)."""
    if isinstance(value, (tuple, list)):
        return any(is_dynamic(v) for v in value)
    if isinstance(value, slice):
        return any(is_dynamic(v) for v in (value.start, value.stop, value.step))
    return isinstance(value, Dim)
