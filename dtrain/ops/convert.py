"""Moving between dtypes and devices, copying into, filling, comparing whole tensors."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from dtrain.autograd.dispatch import Cast, ToDevice, apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import device as devices
from dtrain.backend import dtypes, namespace
from dtrain.errors import ShapeError


class Copy(Op):
    """The second operand broadcast to the first's shape, in its dtype: what ``copy_`` writes."""

    half_as_float = False

    def forward(self, xp: Any, x: Any, source: Any) -> Any:
        self.source_shape, self.source_dtype = source.shape, source.dtype
        return xp.broadcast_to(source, x.shape).astype(x.dtype, copy=False)

    def backward(self, xp: Any, g: Any) -> tuple:
        from dtrain.ops._shape import unbroadcast

        gs = xp.cast(unbroadcast(xp, g, self.source_shape), self.source_dtype) if self.needs(1) else None
        return xp.zeros_like(g) if self.needs(0) else None, gs


class Fill(Op):
    """x with every element replaced by one value."""

    half_as_float = False

    def __init__(self, value: Any) -> None:
        self.value = value

    def forward(self, xp: Any, x: Any) -> Any:
        return xp.full_like(x, self.value)

    def backward(self, xp: Any, g: Any) -> tuple:
        return (xp.zeros_like(g),)


def to(input: Tensor, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, copy: bool = False, memory_format: Any = None) -> Tensor:
    """``input`` with another dtype and/or on another device: ``to(dtype)``, ``to(device)``, ``to(device, dtype)``, ``to(other)``.

    Returns ``input`` itself when nothing changes and ``copy`` is False.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, dtypes.dtype):
            dtype = arg
        elif isinstance(arg, (str, builtins.int, devices.device)) and not isinstance(arg, builtins.bool):
            device = arg
    out = input
    if dtype is not None:
        kind = dtypes.as_dtype(dtype).np
        if out._array.dtype != kind:
            out = apply(Cast(kind), out)
    if device is not None:
        place = devices.resolve(device)
        if out.device != place:
            out = apply(ToDevice(place), out)
    if copy and out is input:
        from dtrain.ops.shape import clone

        return clone(input)
    return out


def _caster(name: str, kind: dtypes.dtype) -> Any:
    def call(input: Tensor) -> Tensor:
        return to(input, kind)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``to({kind})``."
    return call


float = _caster("float", dtypes.float32)
double = _caster("double", dtypes.float64)
half = _caster("half", dtypes.float16)
bfloat16 = _caster("bfloat16", dtypes.bfloat16)
long = _caster("long", dtypes.int64)
int = _caster("int", dtypes.int32)
short = _caster("short", dtypes.int16)
bool = _caster("bool", dtypes.bool)


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """``input`` in the dtype and on the device of ``other``."""
    return to(input, other)


def cpu(input: Tensor) -> Tensor:
    """``to("cpu")``."""
    return input if type(input._array) is np.ndarray else to(input, device="cpu")


def cuda(input: Tensor, device: Any = None, non_blocking: Any = False) -> Tensor:
    """``to("cuda")``, the current CUDA device unless one is given."""
    return to(input, device="cuda" if device is None else device)


def copy_(input: Tensor, src: Any, non_blocking: Any = False) -> Tensor:
    """Write ``src`` (broadcast, converted, moved) into ``input``."""
    src = src if isinstance(src, Tensor) else Tensor._wrap(namespace.of(input._array).asarray(src))
    if type(src._array) is not type(input._array) or (input.is_cuda and src.device != input.device):
        src = to(src, device=input.device)
    lead = input.ndim - src.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(src.shape, input.shape[lead:])):
        raise ShapeError(f"copy_: a source of shape {tuple(src.shape)} does not broadcast to {tuple(input.shape)}")
    return apply_(Copy(), input, src)


def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``."""
    return apply_(Fill(value.item() if isinstance(value, Tensor) else value), input)


def zero_(input: Tensor) -> Tensor:
    """Set every element to 0."""
    return apply_(Fill(0), input)


def equal(input: Tensor, other: Tensor) -> Any:
    """Whether shapes and all values are equal, as a Python bool."""
    xp = namespace.of(input._array)
    return tuple(input.shape) == tuple(other.shape) and xp.asarray(xp.array_equal(input._array, other._array)).item()


def isclose(input: Tensor, other: Tensor, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Tensor:
    """|input - other| <= atol + rtol * |other|, elementwise."""
    xp = namespace.of(input._array)
    return Tensor._wrap(xp.asarray(xp.isclose(input._array, other._array, rtol=rtol, atol=atol, equal_nan=equal_nan)))


def allclose(input: Tensor, other: Tensor, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Any:
    """Whether isclose holds everywhere, as a Python bool."""
    return isclose(input, other, rtol, atol, equal_nan)._array.all().item()
