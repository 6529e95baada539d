"""The two operations the dispatch point itself needs: to another dtype, and to another device."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.op import Op
from dtrain.backend import device as devices


class Cast(Op):
    """y = x in another dtype; the gradient returns in x's."""

    half_as_float = False

    def __init__(self, dtype: Any) -> None:
        self.to = dtype
        if dtype.kind not in "fcV":
            self.differentiable = False  # type: ignore[misc]

    def forward(self, xp: Any, x: Any) -> Any:
        self.source = x.dtype
        return x.astype(self.to)

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.cast(g, self.source),)


class ToDevice(Op):
    """y = x on another device; the gradient returns to x's."""

    half_as_float = False

    def __init__(self, device: devices.device) -> None:
        self.device = device

    def forward(self, xp: Any, x: Any) -> Any:
        self.source = devices.device_of(x)
        return devices.move(x, self.device)

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.run(ToDevice(self.source), g),)
