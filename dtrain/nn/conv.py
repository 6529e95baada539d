"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any, Callable, ClassVar

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError
from dtrain.nn import functional as F
from dtrain.nn import init
from dtrain.nn.linear import fan_in_bounds
from dtrain.nn.module import Module
from dtrain.nn.parameter import Parameter
from dtrain.ops.creation import empty

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """Base: weight (out_channels, in_channels / groups, *kernel_size), transposed (in, out / groups, ...), and bias (out_channels,)."""

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    output_padding: tuple[int, ...] = ()
    function: ClassVar[Callable[..., Tensor]]
    weight: Any
    bias: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups, self.padding_mode = in_channels, out_channels, groups, padding_mode
        self.kernel_size, self.stride, self.dilation = (self._each(n, v) for n, v in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)))
        self.padding = padding if isinstance(padding, str) else self._each("padding", padding)
        self._check()
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(channels[0], channels[1] // groups, *self.kernel_size, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _each(self, name: str, value: Any) -> tuple[int, ...]:
        """One number for every spatial dim."""
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * self.dims
        if len(values) != self.dims:
            raise ArgumentError(f"{self._get_name()}: {name} is one number or {self.dims}, got {value}")
        return values

    def _check(self) -> None:
        name = self._get_name()
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise ArgumentError(f"{name}: groups={self.groups} must divide in_channels={self.in_channels} and out_channels={self.out_channels}")
        if self.padding_mode not in _MODES:
            raise ArgumentError(f"{name}: padding_mode is one of {', '.join(_MODES)}, got {self.padding_mode!r}")
        if isinstance(self.padding, str):
            if self.padding not in ("valid", "same"):
                raise ArgumentError(f"{name}: padding is 'valid', 'same' or numbers, got {self.padding!r}")
            if self.padding == "same" and any(s != 1 for s in self.stride):
                raise ArgumentError(f"{name}: padding='same' needs stride 1, got {self.stride}")

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within 1 / sqrt(fan_in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            init.uniform_(self.bias, *fan_in_bounds(self.weight))

    def _check_input(self, input: Tensor) -> None:
        if input.ndim not in (self.dims + 1, self.dims + 2) or input.shape[-self.dims - 1] != self.in_channels:
            spatial = ("length", "height, width", "depth, height, width")[self.dims - 1]
            raise ShapeError(f"expected input (batch, {self.in_channels}, {spatial}) or the same without batch, got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        if self.padding_mode == "zeros":
            return type(self).function(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        padded = F.pad(input, self._padding_for_pad(), mode=self.padding_mode)
        return type(self).function(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding_for_pad(self) -> list[int]:
        """Padding as F.pad takes it: (before, after) of the last dim first."""
        out: list[int] = []
        for i in reversed(range(self.dims)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                out += [total // 2, total - total // 2]
            else:
                out += [0 if self.padding == "valid" else self.padding[i]] * 2
        return out

    def extra_repr(self) -> str:
        ones = (1,) * self.dims
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if any(self.output_padding):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class Conv1d(_Conv):
    """Cross-correlation over (batch, in_channels, length)."""

    dims = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Cross-correlation over (batch, in_channels, height, width)."""

    dims = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Cross-correlation over (batch, in_channels, depth, height, width)."""

    dims = 3
    function = staticmethod(F.conv3d)


class _ConvTranspose(_Conv):
    """Base of the transposes, which enlarge: output size (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ArgumentError(f"{self._get_name()} takes padding as numbers and padding_mode 'zeros', got {padding!r} and {padding_mode!r}")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.output_padding = self._each("output_padding", output_padding)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        self._check_input(input)
        extra = self.output_padding if output_size is None else self._extra_for(input, tuple(output_size)[-self.dims :])
        return type(self).function(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _extra_for(self, input: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The output_padding that gives the wanted sizes."""
        geometry = zip(input.shape[-self.dims :], self.stride, self.padding, self.dilation, self.kernel_size)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in geometry]
        extra = tuple(size - low for size, low in zip(wanted, least))
        if len(wanted) != self.dims or not all(0 <= e < s for e, s in zip(extra, self.stride)):
            most = [low + s - 1 for low, s in zip(least, self.stride)]
            raise ArgumentError(f"output_size {wanted} cannot be reached from an input of {tuple(input.shape)}; it can be {least} to {most}")
        return extra


class ConvTranspose1d(_ConvTranspose):
    """The transpose of Conv1d."""

    dims = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of Conv2d."""

    dims = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of Conv3d."""

    dims = 3
    function = staticmethod(F.conv_transpose3d)
