"""Parameters as one vector, and back."""

from __future__ import annotations

from typing import Iterable

from dtrain.autograd.grad_mode import no_grad
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ShapeError
from dtrain.ops.join import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened into one 1-D tensor, in order; differentiable."""
    return cat([p.reshape(-1) for p in parameters])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy slices of ``vec`` (1-D) into the parameters, in order. Raises ShapeError when lengths differ."""
    params = list(parameters)
    total = sum(p.numel() for p in params)
    if tuple(vec.shape) != (total,):
        raise ShapeError(f"the parameters hold {total} numbers, the vector has shape {tuple(vec.shape)}")
    start = 0
    with no_grad():
        for p in params:
            p.copy_(vec[start : start + p.numel()].reshape(tuple(p.shape)))  # type: ignore[attr-defined, index]
            start += p.numel()
