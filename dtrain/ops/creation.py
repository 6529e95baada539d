"""Making tensors from numbers, shapes and other arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dtrain.autograd.dispatch import announce
from dtrain.autograd.tensor import Tensor, as_array
from dtrain.backend import device as devices
from dtrain.backend import dtypes, namespace, promotion
from dtrain.backend.state import local
from dtrain.errors import ArgumentError, ShapeError
from dtrain.logs import warn_once
from dtrain.ops._shape import shape_args


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A new leaf tensor of ``data`` (numbers, nested lists, arrays), always a copy. Floats get the default dtype."""
    if isinstance(data, Tensor):
        warn_once("tensor-of-tensor", "tensor(t) copies a tensor; t.detach().clone() says so")
    array = as_array(data, dtype, device)
    if isinstance(array, np.ndarray) and isinstance(data, np.ndarray) and np.shares_memory(array, data):
        array = array.copy()
    return _finish(Tensor._wrap(array), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where dtype and device allow."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)  # type: ignore[attr-defined]
    if isinstance(data, np.ndarray):
        return from_numpy(data).to(device=device or local.device, dtype=dtype)  # type: ignore[attr-defined]
    return tensor(data, dtype=dtype, device=device)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A CPU tensor that shares the array's memory."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy expects a numpy.ndarray, got {type(ndarray).__name__}; use dtrain.tensor for other data")
    dtypes.from_numpy(ndarray.dtype)
    return Tensor._wrap(np.asarray(ndarray))


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares the memory of any object with ``__dlpack__``."""
    if ext_tensor.__dlpack_device__()[0] == 1:
        return Tensor._wrap(np.from_dlpack(ext_tensor))
    from dtrain.backend import cuda

    return Tensor._wrap(cuda.cupy().from_dlpack(ext_tensor))


def _finish(out: Tensor, requires_grad: bool) -> Tensor:
    return out.requires_grad_() if requires_grad else out


def _place(device: Any) -> devices.device:
    if device is not None:
        return devices.device(device)
    return devices.device(local.device or "cpu")


def _made(function: str, device: Any, dtype: Any, requires_grad: bool, *args: Any) -> Tensor:
    """``xp.function(*args, dtype)`` on a device."""
    place = _place(device)
    xp = namespace.for_device(place.type)
    kind = (dtypes.as_dtype(dtype) if dtype is not None else dtypes.get_default_dtype()).np
    with devices.scope(place):
        array = getattr(xp, function)(*args, dtype=kind)
    out = _finish(Tensor._wrap(array), requires_grad)
    return announce(function, out, args=args) if local.modes else out


def _sized(size: tuple) -> tuple[int, ...]:
    shape = shape_args(size)
    if any(n < 0 for n in shape):
        raise ShapeError(f"a tensor's sizes cannot be negative, got {shape}")
    return shape


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None, pin_memory: bool = False) -> Tensor:
    """A tensor of uninitialised memory."""
    return _made("empty", device, dtype, requires_grad, _sized(size))


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _made("zeros", device, dtype, requires_grad, _sized(size))


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _made("ones", device, dtype, requires_grad, _sized(size))


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value; its dtype follows the value unless given."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    if dtype is None:
        kinds = {bool: dtypes.bool, complex: promotion.result_type(1j)}
        dtype = kinds.get(type(value)) or (dtypes.int64 if isinstance(value, int) else None)
    return _made("full", device, dtype, requires_grad, _sized((size,) if isinstance(size, int) else tuple(size)), value)


def _like(function: Any, input: Tensor, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    return function(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """Uninitialised, with the shape, dtype and device of ``input``."""
    return _like(empty, input, dtype, device, requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """Zeros with the shape, dtype and device of ``input``."""
    return _like(zeros, input, dtype, device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """Ones with the shape, dtype and device of ``input``."""
    return _like(ones, input, dtype, device, requires_grad)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One value with the shape, dtype and device of ``input``."""
    return full(tuple(input.shape), fill_value, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def new_zeros(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of a new size with the dtype and device of ``input``."""
    return zeros(*size, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def new_ones(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of a new size with the dtype and device of ``input``."""
    return ones(*size, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def new_empty(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised, of a new size with the dtype and device of ``input``."""
    return empty(*size, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One value of a new size with the dtype and device of ``input``."""
    return full(size, fill_value, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def new_tensor(input: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``data`` copied with the dtype and device of ``input``."""
    return tensor(data, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... up to but not including ``end``; int64 for integers, else the default dtype."""
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ArgumentError("arange: step must not be 0")
    if (end - start) / step < 0:
        raise ArgumentError(f"arange: from {start} to {end} needs a step of the other sign, got {step}")
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    kind = dtypes.as_dtype(dtype) if dtype is not None else dtypes.int64 if whole else dtypes.get_default_dtype()
    count = math.ceil((end - start) / step)
    place = _place(device)
    xp = namespace.for_device(place.type)
    with devices.scope(place):
        if whole:
            array = xp.arange(start, end, step, dtype=np.int64).astype(kind.np)
        else:
            array = (xp.arange(0, count, 1, dtype=np.float64) * step + start).astype(kind.np)
    out = _finish(Tensor._wrap(array), requires_grad)
    return announce("arange", out, args=(start, end, step)) if local.modes else out


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``steps`` values evenly from ``start`` to ``end``, both included."""
    place = _place(device)
    kind = (dtypes.as_dtype(dtype) if dtype is not None else dtypes.get_default_dtype()).np
    with devices.scope(place):
        array = namespace.for_device(place.type).linspace(float(start), float(end), steps, dtype=np.float64).astype(kind)
    return _finish(Tensor._wrap(array), requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, m being n by default."""
    return _made("eye", device, dtype, requires_grad, n, n if m is None else m)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Row and column indices, (2, count), of the lower triangle."""
    return tensor(np.stack(np.tril_indices(row, offset, col)), dtype=dtype or dtypes.int64, device=device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Row and column indices, (2, count), of the upper triangle."""
    return tensor(np.stack(np.triu_indices(row, offset, col)), dtype=dtype or dtypes.int64, device=device)
