"""Arrays and devices: the only place that knows NumPy from CuPy."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def cuda_guard(arrays: list) -> Any:
    """The context that makes CuPy arrays' device current; nothing for others. Raises DeviceError if they are on several."""
    if not any(type(a).__module__.startswith("cupy") for a in arrays):
        return nullcontext()
    from dtrain.backend import cuda

    return cuda.guard(arrays)
