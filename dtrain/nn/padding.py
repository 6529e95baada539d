"""Padding layers."""

from __future__ import annotations

from typing import Any, ClassVar

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError
from dtrain.nn import functional as F
from dtrain.nn.module import Module


class _Pad(Module):
    """Base: ``padding`` is one number for all sides, or (before, after) of the last dim, then of the one before it."""

    dims: ClassVar[int]
    mode: ClassVar[str] = "constant"
    value: float = 0.0

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.dims) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self.dims:
            raise ArgumentError(f"{self._get_name()}: padding is one number or {2 * self.dims}, got {padding}")

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim < self.dims:
            raise ShapeError(f"expected an input of at least {self.dims} dims, got shape {tuple(input.shape)}")
        return F.pad(input, self.padding, self.mode, self.value if self.mode == "constant" else None)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` around the last dim."""

    dims = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dims."""

    dims = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dims."""

    dims = 3


class ZeroPad1d(_Pad):
    """Zeros around the last dim."""

    dims = 1


class ZeroPad2d(_Pad):
    """Zeros around the last two dims."""

    dims = 2


class ZeroPad3d(_Pad):
    """Zeros around the last three dims."""

    dims = 3


class ReflectionPad1d(_Pad):
    """The last dim reflected at its edges, which are not repeated."""

    dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dims reflected at their edges, which are not repeated."""

    dims, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three dims reflected at their edges, which are not repeated."""

    dims, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The edges of the last dim repeated."""

    dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edges of the last two dims repeated."""

    dims, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The edges of the last three dims repeated."""

    dims, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last dim goes on from its other end."""

    dims, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two dims go on from their other ends."""

    dims, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The last three dims go on from their other ends."""

    dims, mode = 3, "circular"
