"""Dropout."""

from __future__ import annotations

from typing import Any, Callable, ClassVar

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.nn import functional as F
from dtrain.nn.module import Module


class Dropout(Module):
    """In training each element is zero with probability ``p``, the others are scaled by 1 / (1 - p) (Srivastava et al. 2014)."""

    function: ClassVar[Callable[..., Any]] = staticmethod(F.dropout)

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError(f"a dropout probability is a number of [0, 1], got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Any:
        return self.function(input, self.p, self.training, self.inplace) if self.training and self.p else input

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """Whole channels of (batch, channels, length) are dropped."""

    function = staticmethod(F.dropout1d)


class Dropout2d(Dropout):
    """Whole channels of (batch, channels, height, width) are dropped."""

    function = staticmethod(F.dropout2d)


class Dropout3d(Dropout):
    """Whole channels of (batch, channels, depth, height, width) are dropped."""

    function = staticmethod(F.dropout3d)
