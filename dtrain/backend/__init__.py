"""Arrays and devices: the only place that knows NumPy from CuPy."""

from __future__ import annotations

from typing import Any


def cuda_guard(arrays: list) -> Any:
    """The context that makes the CuPy arrays' device current. Raises DeviceError if they are on several."""
    from dtrain.backend import cuda

    return cuda.guard(arrays)
