"""Arrays and devices: the only place that knows NumPy from CuPy."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def cuda_guard(arrays: list) -> Any:
    """The context that makes the first CuPy array's device current."""
    for a in arrays:
        device = getattr(a, "device", None)
        if device is not None and hasattr(device, "__enter__"):
            return device
    return nullcontext()
