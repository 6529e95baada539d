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


def scatter_add(target: Any, index: Any, values: Any) -> None:
    """``target[index] += values`` with repeated indices adding up.

    Rows of one index array are sorted and summed in runs, several times faster than ``np.add.at``.
    """
    if len(index) == 1 and getattr(index[0], "ndim", 0) == 1 and target.ndim > 1 and index[0].size and index[0].dtype != bool:
        rows = index[0]
        order = rows.argsort(kind="stable")
        ordered = rows[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        if rows.min() >= 0:
            values = np.broadcast_to(values, rows.shape + target.shape[1:])
            target[ordered[starts]] += np.add.reduceat(values[order], starts, axis=0)
            return
    np.add.at(target, index, values)
