"""Dropout, with masks of a counter-based stream that is the same on CPU and GPU (``backend/philox.py``)."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import random as rng
from dtrain.errors import ArgumentError


class Dropout(Op):
    """y = x * kept / (1 - p), where ``kept`` is drawn over the first ``over`` dims and spreads over the others (None: over all)."""

    def __init__(self, p: float, over: int | None = None) -> None:
        self.p, self.over = p, over

    def forward(self, xp: Any, x: Any) -> Any:
        shape = x.shape if self.over is None else x.shape[: self.over] + (1,) * (x.ndim - self.over)
        keep = rng.dropout_mask(xp, shape, self.p)
        scaled = keep.astype(x.dtype) * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        self.saved = (scaled,)
        return x * scaled

    def backward(self, xp: Any, g: Any) -> tuple:
        (scaled,) = self.unpack(xp)
        return (g * scaled,)


def _dropout(name: str, input: Tensor, p: float, training: bool, inplace: bool, over: int | None) -> Tensor:
    if not 0 <= p <= 1:
        raise ArgumentError(f"{name}: p is a probability between 0 and 1, got {p}")
    if not training or p == 0 or not input.numel():
        return input
    out = apply(Dropout(p, over), input)
    return input.copy_(out) if inplace else out  # type: ignore[attr-defined]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Elements set to 0 with probability ``p``, the others scaled by 1 / (1 - p); nothing happens outside training."""
    return _dropout("dropout", input, p, training, inplace, None)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, L) or (C, L) dropped."""
    return _dropout("dropout1d", input, p, training, inplace, input.ndim - 1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, H, W) or (C, H, W) dropped."""
    return _dropout("dropout2d", input, p, training, inplace, input.ndim - 2)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, D, H, W) or (C, D, H, W) dropped."""
    return _dropout("dropout3d", input, p, training, inplace, input.ndim - 3)
