"""Modules between dtypes and devices. Parameters stay the objects they are; what they hold is replaced."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.grad_mode import no_grad
from dtrain.autograd.tensor import Tensor
from dtrain.backend import device as devices
from dtrain.backend import dtypes
from dtrain.errors import DtypeError


class MoveMixin:
    """``to`` and its short forms. All change the module and return it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Replace the values of all parameters (and their gradients) and buffers by ``fn`` of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        with no_grad():
            for param in self._parameters.values():
                if param is not None:
                    param.data = fn(param.data)
                    if param._grad is not None:
                        param._grad = fn(param._grad.detach())
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Any:
        """Move to a device and/or convert floating values: ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``.

        Raises DtypeError for a dtype that is not floating or complex.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, dtypes.dtype):
                dtype = arg
            elif isinstance(arg, bool):
                non_blocking = arg
            elif arg is not None:
                device = arg
        kind = None if dtype is None else dtypes.as_dtype(dtype)
        if kind is not None and not (kind.is_floating_point or kind.is_complex):
            raise DtypeError(f"a module's to() takes floating or complex dtypes, got {kind}; integer buffers keep theirs")
        place = None if device is None else devices.resolve(device)

        def convert(t: Tensor) -> Tensor:
            return t.to(device=place, dtype=kind if t.is_floating_point() or t.is_complex() else None, non_blocking=non_blocking)

        return self._apply(convert)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Any:
        """Move to a device without the values: memory there is uninitialised (for modules made on ``meta``)."""
        from dtrain.ops.creation import empty_like

        place = devices.resolve(device)
        return self._apply(lambda t: empty_like(t, device=place), recurse)

    def type(self, dst_type: Any) -> Any:
        """All parameters and buffers, of whatever dtype, in ``dst_type``."""
        kind = dtypes.as_dtype(dst_type)
        return self._apply(lambda t: t.to(kind))

    def cpu(self) -> Any:
        """Move to the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Any:
        """Move to a CUDA device, the current one by default."""
        return self.to("cuda" if device is None else devices.device(device))

    def float(self) -> Any:
        """Floating values in float32."""
        return self._floating(dtypes.float32)

    def double(self) -> Any:
        """Floating values in float64."""
        return self._floating(dtypes.float64)

    def half(self) -> Any:
        """Floating values in float16."""
        return self._floating(dtypes.float16)

    def bfloat16(self) -> Any:
        """Floating values in bfloat16."""
        return self._floating(dtypes.bfloat16)

    def _floating(self, kind: dtypes.dtype) -> Any:
        return self._apply(lambda t: t.to(kind) if t.is_floating_point() else t)
