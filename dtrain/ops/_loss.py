"""What losses share: reductions, PyTorch's two deprecated spellings of them, and the refusal to broadcast."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, DtypeError, GraphError, ShapeError


def resolve(name: str, reduction: str, size_average: bool | None, reduce: bool | None, others: tuple[str, ...] = ()) -> str:
    """The reduction meant: "none", "mean" or "sum". Raises ArgumentError for any other."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    known = ("none", "mean", "sum", *others)
    if reduction not in known:
        raise ArgumentError(f"{name}: reduction is {reduction!r}; expected one of {', '.join(map(repr, known))}")
    return reduction


def same_size(name: str, input: Tensor, target: Tensor) -> None:
    """Raise ShapeError if the sizes differ: a loss of shapes (n, 1) and (n,) would broadcast to n * n pairs and train to nonsense."""
    if input.shape == target.shape:
        return
    hint = "reshape one to the other's shape"
    if input.ndim == target.ndim + 1 and input.shape[-1] == 1:
        hint = "use input.squeeze(-1), or target.unsqueeze(-1)"
    elif target.ndim == input.ndim + 1 and target.shape[-1] == 1:
        hint = "use target.squeeze(-1), or input.unsqueeze(-1)"
    raise ShapeError(
        f"{name}: input of shape {tuple(input.shape)} and target of shape {tuple(target.shape)} differ, and a loss does not broadcast; "
        f"{hint}, or, if every pair is meant, expand one explicitly"
    )


def floating(name: str, *tensors: Tensor | None) -> None:
    for x in tensors:
        if x is not None and x._array.dtype.kind not in "fV":
            raise DtypeError(f"{name} needs floating point tensors, got {x.dtype}; convert with .float()")


def constant(name: str, what: str, weight: Tensor | None) -> None:
    """Raise GraphError if a gradient is asked for where there is none."""
    if weight is not None and weight.requires_grad:
        raise GraphError(f"{name} has no gradient with respect to {what}; pass {what}.detach()")


def reduced(xp: Any, values: Any, reduction: str) -> Any:
    """The values, their mean or their sum."""
    if reduction == "none":
        return values
    return xp.asarray(xp.sum(values) if reduction == "sum" else xp.mean(values))
