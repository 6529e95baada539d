"""Windows that slide over the last dims of an array: what convolution and pooling share."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Iterator

from dtrain.errors import ArgumentError, ShapeError


def per_dim(name: str, what: str, value: Any, dims: int) -> tuple[int, ...]:
    """One number for all dims or one for each, as a tuple. Raises ArgumentError for another count."""
    values = (value,) * dims if isinstance(value, int) else tuple(v if isinstance(v, int) else int(v) for v in value)
    if len(values) == 1:
        values *= dims
    if len(values) != dims:
        raise ArgumentError(f"{name}: {what} is {value}; expected one number or {dims}")
    return values


class Windows:
    """Sizes of windows over ``size``: kernel, stride, dilation, and the padding (before, after) of each dim."""

    def __init__(
        self,
        size: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        dilation: tuple[int, ...],
        out: tuple[int, ...] | None = None,
    ) -> None:
        self.size, self.kernel, self.stride, self.padding, self.dilation = size, kernel, stride, padding, dilation
        self.padded = tuple(n + sum(p) for n, p in zip(size, padding))
        self.given_out = out is not None
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
        self.out = out or tuple((n - span) // s + 1 for n, span, s in zip(self.padded, spans, stride))
        if min(self.out, default=1) < 1:
            raise ShapeError(
                f"windows of {spans} (kernel {kernel}, dilation {dilation}) do not fit into {size} with padding {padding}; "
                "pad more, or use a smaller kernel"
            )
        # Windows may begin in the padding of a last, incomplete step (ceil_mode); the padded array must reach their end.
        self.padded = tuple(max(n, (o - 1) * s + span) for n, o, s, span in zip(self.padded, self.out, stride, spans))
        self.count = math.prod(kernel)

    def offsets(self) -> Iterator[tuple[slice, ...]]:
        """For each place in the kernel the slices of the padded dims that hold that element of every window."""
        ranges = []
        for k, s, d, o in zip(self.kernel, self.stride, self.dilation, self.out):
            ranges.append([slice(i * d, i * d + (o - 1) * s + 1, s) for i in range(k)])
        return product(*ranges)

    @property
    def interior(self) -> tuple[slice, ...]:
        """Where the array itself lies in the padded one."""
        return tuple(slice(before, before + n) for (before, _), n in zip(self.padding, self.size))

    @property
    def is_padded(self) -> bool:
        return self.padded != self.size

    def pad(self, xp: Any, x: Any, filling: Any) -> Any:
        """x with its last dims padded, or x itself."""
        if not self.is_padded:
            return x
        shape = (*x.shape[: x.ndim - len(self.size)], *self.padded)
        out = xp.zeros(shape, x.dtype) if filling == 0 else xp.full(shape, filling, x.dtype)
        out[(..., *self.interior)] = x
        return out
