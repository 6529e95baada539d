"""The base of activations: a function of one operand and its slope, both computed in pieces that fit the cache."""

from __future__ import annotations

from functools import partial
from typing import Any

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.blocks import in_blocks
from dtrain.errors import DtypeError


class Pointwise(Op):
    """y = value(x), elementwise; ``slope`` gives g times the derivative from what ``saves`` names, of x and y."""

    saves = "x"

    def forward(self, xp: Any, x: Any) -> Any:
        y = xp.asarray(in_blocks(xp, partial(self.value, xp), x))
        self.saved = (x,) if self.saves == "x" else (y,) if self.saves == "y" else (x, y)
        return y

    def backward(self, xp: Any, g: Any) -> tuple:
        saved = self.unpack(xp)
        if xp.builds_graph:
            return (self.slope(xp, g, *saved),)
        return (in_blocks(xp, partial(self.slope, xp), g, *saved),)

    def value(self, xp: Any, x: Any) -> Any:
        raise AssertionError(f"{self.name()} has no value")

    def slope(self, xp: Any, g: Any, *saved: Any) -> Any:
        raise AssertionError(f"{self.name()} has no slope")


def activate(op: Op, input: Tensor, inplace: bool = False) -> Tensor:
    """Apply an activation to a floating point tensor, writing into ``input`` if ``inplace``."""
    if input._array.dtype.kind not in "fV":
        raise DtypeError(f"{op.name().lower()} needs a floating point tensor, got {input.dtype}; convert with .float() first")
    return apply_(op, input) if inplace else apply(op, input)
