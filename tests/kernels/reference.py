"""GELU and its derivative with 40 digits, and distances in units in the last place."""

from __future__ import annotations

import mpmath as mp
import numpy as np

FORMS = ("none", "tanh")


def gelu(x: float, form: str) -> mp.mpf:
    x = mp.mpf(x)
    return x * (mp.erfc(-x / mp.sqrt(2)) / 2 if form == "none" else _sigmoid(x))


def slope(x: float, form: str) -> mp.mpf:
    x = mp.mpf(x)
    if form == "none":
        return mp.erfc(-x / mp.sqrt(2)) / 2 + x * mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
    s = _sigmoid(x)
    return s + x * s * (1 - s) * _rate() * (1 + 3 * mp.mpf("0.044715") * x * x)


def _rate() -> mp.mpf:
    return 2 * mp.sqrt(2 / mp.pi)


def _sigmoid(x: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-_rate() * (x + mp.mpf("0.044715") * x**3)))


def ulps(got: np.ndarray, x: np.ndarray, f, form: str) -> float:
    """The largest distance of ``got`` from f(x), in units in the last place of f(x).

    Where the slope crosses zero, near x = -0.75, two terms of about 0.25 cancel: there the unit is that of the terms.
    """
    worst = 0.0
    with mp.workdps(40):
        for value, point in zip(got.tolist(), x.tolist()):
            exact = f(point, form)
            size = max(abs(exact), gelu(point, form) / point) if f is slope else abs(exact)
            unit = np.spacing(got.dtype.type(float(size)))
            worst = max(worst, float(abs(mp.mpf(value) - exact) / mp.mpf(float(unit))))
    return worst


def points(dtype: type, count: int = 150) -> np.ndarray:
    """Arguments over the whole range where GELU is neither 0 nor the identity, dense where it bends, subnormal results included."""
    rng = np.random.default_rng(0)
    end = 14.4 if dtype == np.float32 else 38.5
    small = 10.0 ** rng.uniform(-30, 0.5, count)
    return np.concatenate([rng.uniform(-end, end, count), rng.normal(size=count), small, -small]).astype(dtype)
