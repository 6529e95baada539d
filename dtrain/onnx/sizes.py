"""Sizes that remember where they came from, so that ``x.shape[0] * 2`` in a model stays a formula in the export."""

from __future__ import annotations

from typing import Any


class Dim(int):
    """An int (this run's size) with the expression it stands for.

    ``expr`` is ``("dim", tensor, axis)`` or ``(operator, left, right)`` with Dims or ints inside.
    """

    expr: tuple

    def __new__(cls, value: int, expr: tuple) -> "Dim":
        made = int.__new__(cls, value)
        made.expr = expr
        return made

    def __add__(self, other: Any) -> Any:
        return _combine("Add", self, other, int.__add__)

    def __radd__(self, other: Any) -> Any:
        return _combine("Add", other, self, int.__add__)

    def __sub__(self, other: Any) -> Any:
        return _combine("Sub", self, other, int.__sub__)

    def __rsub__(self, other: Any) -> Any:
        return _combine("Sub", other, self, int.__sub__)

    def __mul__(self, other: Any) -> Any:
        return _combine("Mul", self, other, int.__mul__)

    def __rmul__(self, other: Any) -> Any:
        return _combine("Mul", other, self, int.__mul__)

    def __floordiv__(self, other: Any) -> Any:
        return _combine("Div", self, other, int.__floordiv__)  # sizes are never negative: ONNX's truncation is the same

    def __neg__(self) -> Any:
        return _combine("Sub", 0, self, int.__sub__)

    def __reduce__(self) -> tuple:
        return int, (int(self),)


def _combine(name: str, a: Any, b: Any, compute: Any) -> Any:
    if not isinstance(a, int) or not isinstance(b, int) or isinstance(a, bool) or isinstance(b, bool):
        return NotImplemented
    return Dim(compute(int(a), int(b)), (name, a, b))


def is_dynamic(value: Any) -> bool:
    """Whether a Dim occurs in ``value`` (an int, or nested tuples, lists and slices of them)."""
    if isinstance(value, (tuple, list)):
        return any(is_dynamic(v) for v in value)
    if isinstance(value, slice):
        return any(is_dynamic(v) for v in (value.start, value.stop, value.step))
    return isinstance(value, Dim)
