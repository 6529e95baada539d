"""Error functions."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import special

_SLOPE = 1.1283791670955126  # 2 / sqrt(pi)


class Erf(Op):
    """y = erf(x), or erfc(x) = 1 - erf(x)."""

    floats = True

    def __init__(self, complement: bool = False) -> None:
        self.complement = complement

    def forward(self, xp: Any, x: Any) -> Any:
        self.saved = (x,)
        return (special.erfc if self.complement else special.erf)(xp, x)

    def backward(self, xp: Any, g: Any) -> tuple:
        (x,) = self.unpack(xp)
        return (g * xp.exp(-x * x) * (-_SLOPE if self.complement else _SLOPE),)


def erf(input: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t*t) from 0 to input."""
    return apply(Erf(), input)


def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), without cancellation for large inputs."""
    return apply(Erf(complement=True), input)
