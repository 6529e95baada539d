"""Clipping gradients by their total norm or by value, in place."""

from __future__ import annotations

import math
import types
import warnings
from typing import Any, Iterable

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import cuda_guard, namespace
from dtrain.backend.device import move
from dtrain.errors import NonFiniteError

_F32 = np.dtype(np.float32)


def _tensors(given: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else list(given)


def _power_sum(array: Any, norm_type: float) -> Any:
    """sum |x|^p of one array as a 0-dim array on its device (max |x| for infinity), halves in float32."""
    xp = namespace.of(array)
    with cuda_guard([array]):
        flat = array.reshape(-1) if array.dtype.itemsize > 2 else array.astype(np.float32).reshape(-1)
        if math.isinf(norm_type):
            return xp.max(xp.abs(flat)) if norm_type > 0 else xp.min(xp.abs(flat))
        if norm_type == 2.0:
            return xp.matmul(flat, flat)
        if norm_type == 0.0:
            return xp.sum((flat != 0).astype(flat.dtype))
        return xp.sum(xp.power(xp.abs(flat), norm_type))


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The ``norm_type``-norm of all tensors as one vector: a 0-dim tensor on the first one's device.

    Raises NonFiniteError for an infinite or NaN norm if ``error_if_nonfinite``.
    """
    norm_type = float(norm_type)
    arrays = [t._array for t in _tensors(tensors) if t._array.size]
    if not arrays:
        return Tensor._wrap(np.zeros((), np.float32))
    parts = [_power_sum(array, norm_type) for array in arrays]
    total = _combine(parts, arrays[0], norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise NonFiniteError(
            f"the total norm of order {norm_type} of the gradients is {total.item()}, so they cannot be clipped; "
            "look for the NaN or infinity, or pass error_if_nonfinite=False to scale by it anyway"
        )
    return total


def _combine(parts: list, first: Any, norm_type: float) -> Tensor:
    """The norm from the power sums of all arrays, on ``first``'s device: on the CPU in float64, on a GPU without waiting for it."""
    xp = namespace.of(first)
    dtype = _F32 if first.dtype.itemsize == 2 else first.dtype  # half's range is too small for a norm
    place = Tensor._wrap(first).device
    with cuda_guard([first]):
        if xp.name == "numpy":
            together = np.array([float(p) for p in parts])
        else:
            together = xp.stack([move(xp.asarray(p), place) for p in parts])
        if math.isinf(norm_type):
            norm = xp.max(together) if norm_type > 0 else xp.min(together)
        else:
            total = xp.sum(together)
            norm = total if norm_type == 0.0 else xp.sqrt(total) if norm_type == 2.0 else xp.power(total, 1.0 / norm_type)
        return Tensor._wrap(xp.asarray(norm).astype(dtype))


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None) -> None:
    """Scale the gradients of ``parameters`` by max_norm / total_norm where that is below 1."""
    grads = [p._grad for p in _tensors(parameters) if p._grad is not None]
    if not grads:
        return
    xp = namespace.of(total_norm._array)
    if xp.name == "numpy" and all(type(g._array) is np.ndarray for g in grads):
        coefficient = float(max_norm) / (float(total_norm._array) + 1e-6)
        if coefficient >= 1.0:
            return
        for grad in grads:
            _scale(grad, coefficient)
        return
    with cuda_guard([total_norm._array]):  # the coefficient stays on the device: reading it would wait for all work there
        limited = xp.minimum(float(max_norm) / (total_norm._array + 1e-6), 1.0)
    for grad in grads:
        with cuda_guard([grad._array]):
            _scale(grad, move(limited, grad.device).astype(grad._array.dtype))


def _scale(grad: Tensor, coefficient: Any) -> None:
    array = grad._array
    if array.dtype.itemsize == 2 and type(array) is np.ndarray:
        array[...] = array.astype(np.float32) * np.float32(coefficient)
    else:
        array *= coefficient
    grad._vc[0] += 1


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their norm as one vector is at most ``max_norm``. Returns the norm before (0-dim).

    Raises NonFiniteError for an infinite or NaN norm if ``error_if_nonfinite``. ``foreach`` is accepted and means nothing.
    """
    params = _tensors(parameters)
    if not params and isinstance(parameters, types.GeneratorType):
        warnings.warn("clip_grad_norm_ got a generator without parameters (used up before?), nothing is clipped", stacklevel=2)
    total = get_total_norm([p._grad for p in params if p._grad is not None], norm_type, error_if_nonfinite)
    clip_grads_with_norm_(params, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value]."""
    limit = float(clip_value)
    for p in _tensors(parameters):
        if p._grad is not None:
            p._grad.detach().clamp_(-limit, limit)  # type: ignore[attr-defined]
