"""Losses made of other operations: margins, distances, likelihoods of given distributions."""

from __future__ import annotations

import math
from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops import elementwise, unary
from dtrain.ops import reduce as reductions
from dtrain.ops._loss import resolve, same_size
from dtrain.ops.activation import logsigmoid, softplus
from dtrain.ops.normalization import cosine_similarity


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return reductions.mean(losses) if reduction == "mean" else reductions.sum(losses)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dim."""
    return reductions.norm(x1 - x2 + eps, p, -1, keepdim)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin - target * (input1 - input2)); target is 1 where input1 should rank higher, else -1."""
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            f"margin_ranking_loss needs inputs and target of one number of dims, got {tuple(input1.shape)}, {tuple(input2.shape)}, {tuple(target.shape)}"
        )
    losses = unary.clamp(margin - target * (input1 - input2), min=0)
    return _reduced(losses, resolve("margin_ranking_loss", reduction, size_average, reduce))


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """The input where target is 1, max(0, margin - input) where it is -1."""
    same_size("hinge_embedding_loss", input, target)
    zero = input * 0
    apart = elementwise.where(target == 1, zero, unary.clamp(margin - input, min=0))
    together = elementwise.where(target == -1, zero, input)
    return _reduced(apart + together, resolve("hinge_embedding_loss", reduction, size_average, reduce))


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(input1, input2) where target is 1, max(0, cos - margin) where it is -1; inputs (N, D) or (D)."""
    same_size("cosine_embedding_loss", input1, input2)
    if input1.ndim not in (1, 2) or target.ndim != input1.ndim - 1:
        raise ShapeError(f"cosine_embedding_loss expects inputs (N, D) and target (N), or (D) and (); got {tuple(input1.shape)}, {tuple(target.shape)}")
    cosine = cosine_similarity(input1, input2, dim=-1, eps=1e-6)
    zero = cosine * 0
    together = elementwise.where(target == 1, 1 - cosine, zero)
    apart = elementwise.where(target == -1, unary.clamp(cosine - margin, min=0), zero)
    return _reduced(together + apart, resolve("cosine_embedding_loss", reduction, size_average, reduce))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + d(anchor, positive) - d(anchor, negative)); ``swap`` uses d(positive, negative) where smaller."""
    if margin <= 0:
        raise ArgumentError(f"triplet_margin_loss: margin is {margin}; expected a number above 0")
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = elementwise.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced(unary.clamp(margin + near - far, min=0), resolve("triplet_margin_loss", reduction, size_average, reduce))


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log(var) + (input - target)^2 / var) / 2, var at least ``eps`` (without a gradient there); ``full`` adds log(2 pi) / 2.

    ``var`` has the input's shape, or without the last dim, or with a last dim of 1, or is a number.
    """
    if not isinstance(var, Tensor):
        var = (input * 0).detach() + var
    if var.shape != input.shape:
        if tuple(var.shape) == tuple(input.shape[:-1]):
            var = var.unsqueeze(-1)  # type: ignore[attr-defined]
        elif tuple(var.shape) != (*input.shape[:-1], 1):
            raise ShapeError(f"gaussian_nll_loss: var of shape {tuple(var.shape)} does not fit input {tuple(input.shape)}")
    if not var.is_meta and var.numel() and float(var._array.min()) < 0:
        raise ArgumentError(f"gaussian_nll_loss: var has the negative entry {float(var._array.min())}; variances are 0 or more")
    var = var + (unary.clamp(var, min=eps) - var).detach()
    losses = (unary.log(var) + (input - target) ** 2 / var) * 0.5
    losses = losses + 0.5 * math.log(2 * math.pi) if full else losses
    return _reduced(losses, resolve("gaussian_nll_loss", reduction, None, None))


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input, or input - target * log(input + eps); ``full`` adds Stirling's term for targets above 1."""
    same_size("poisson_nll_loss", input, target)
    losses = unary.exp(input) - target * input if log_input else input - target * unary.log(input + eps)
    if full:
        safe = unary.clamp(target, min=1)
        stirling = safe * unary.log(safe) - safe + 0.5 * unary.log(2 * math.pi * safe)
        losses = losses + elementwise.where(target > 1, stirling, stirling * 0)
    return _reduced(losses, resolve("poisson_nll_loss", reduction, size_average, reduce))


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target * input)); target is 1 or -1."""
    same_size("soft_margin_loss", input, target)
    return _reduced(softplus(-target * input, threshold=1e9), resolve("soft_margin_loss", reduction, size_average, reduce))


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of scores (..., C) averaged over the C labels."""
    same_size("multilabel_soft_margin_loss", input, target)
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    losses = losses if weight is None else losses * weight
    return _reduced(reductions.mean(losses, -1), resolve("multilabel_soft_margin_loss", reduction, size_average, reduce))
