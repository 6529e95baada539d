"""In-place forms made from out-of-place functions: compute the result, write it into the memory, move the history."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.dispatch import apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.state import local


class Assign(Op):
    """The second operand, which has the first's shape and dtype: what an in-place form writes."""

    half_as_float = False

    def __init__(self, of: str) -> None:
        self.of = of

    def name(self) -> str:  # type: ignore[override]
        return self.of

    def forward(self, xp: Any, x: Any, value: Any) -> Any:
        return value

    def backward(self, xp: Any, g: Any) -> tuple:
        return None, g


def write(name: str, target: Tensor, function: Callable[..., Tensor], args: tuple, kwargs: dict) -> Tensor:
    """``target[...] = function(target, *args)`` with the history of the result.

    The function sees an alias with its own copy of the values where they are about to be overwritten and saved.
    """
    tracked = local.grad_enabled and any(isinstance(x, Tensor) and x.requires_grad for x in (target, *args, *kwargs.values()))
    source = target.clone() if tracked else target  # type: ignore[attr-defined]
    value = function(source, *args, **kwargs)
    return apply_(Assign(name), target, value)
