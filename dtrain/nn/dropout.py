"""Dropout."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.nn import functional as F
from dtrain.nn.module import Module


class Dropout(Module):
    """In training each element is zero with probability ``p``, the others are scaled by 1 / (1 - p) (Srivastava et al. 2014)."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError(f"a dropout probability is a number of [0, 1], got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Any:
        return F.dropout(input, self.p, self.training, self.inplace) if self.training and self.p else input

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
