"""Questions about tensors' types."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.backend import promotion
from dtrain.backend.dtypes import dtype


def is_tensor(obj: Any) -> bool:
    """Whether ``obj`` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating one."""
    return input.dtype.is_floating_point


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def result_type(tensor1: Any, tensor2: Any) -> dtype:
    """The dtype an operation on the two (tensors or Python numbers) computes in."""
    return promotion.result_type(*[x._array if isinstance(x, Tensor) else x for x in (tensor1, tensor2)])
