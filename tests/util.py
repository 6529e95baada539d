"""Small tools that tests of many rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np


def normal(*shape: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Standard normal numbers as a NumPy array of ``shape``; the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy copy of a Tensor, a device array, or anything NumPy takes."""
    raw = getattr(value, "_array", value)
    return raw.get() if hasattr(raw, "get") and not isinstance(raw, dict) else np.array(raw)


def check_close(actual: Any, expected: Any, tolerance: float = 1e-6, what: str = "") -> None:
    """Assert equal shapes and ||actual - expected|| <= tolerance * ||expected|| (or of 1 where that is zero)."""
    a, b = to_numpy(actual), to_numpy(expected)
    assert a.shape == b.shape, f"{what} shape {a.shape}, expected {b.shape}"
    a, b = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in (a, b))
    error, scale = np.linalg.norm(a - b), np.linalg.norm(b) or 1.0
    assert np.isfinite(a).all() == np.isfinite(b).all() and error <= tolerance * scale, (
        f"{what} differs by {error / scale:.3g} of its norm, allowed {tolerance:.3g}\nactual {a}\nexpected {b}"
    )
