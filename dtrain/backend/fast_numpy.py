"""NumPy's functions without their Python wrappers, which cost more than the work on small arrays.

``np.mean`` of 64 floats takes 11 us, the reduction itself 1.5; a training step of a small network calls dozens of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_add = np.add.reduce
_ndarray = np.ndarray


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return _add(x, axis=axis, keepdims=keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = _add(x, axis=axis, keepdims=keepdims)
    return total / (x.size / total.size) if total.size else total


def reshape(x: Any, shape: Any) -> Any:
    return x.reshape(shape)


def transpose(x: Any, axes: Any = None) -> Any:
    return x.transpose(axes)


def swapaxes(x: Any, a: int, b: int) -> Any:
    return x.swapaxes(a, b)


def squeeze(x: Any, axis: Any = None) -> Any:
    return x.squeeze(axis)


def zeros_like(x: Any) -> Any:
    return np.zeros(x.shape, x.dtype)


def ones_like(x: Any) -> Any:
    return np.ones(x.shape, x.dtype)


def broadcast_to(x: Any, shape: Any) -> Any:
    """One element over a shape, quickly; the general case through NumPy."""
    if x.size == 1 and x.__class__ is _ndarray and x.flags.writeable:
        return _ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    return np.broadcast_to(x, shape)


OVERRIDES = {f.__name__: f for f in (sum, mean, reshape, transpose, swapaxes, squeeze, zeros_like, ones_like, broadcast_to)}
