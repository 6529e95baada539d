"""Samples of a categorical distribution that have a gradient."""

from __future__ import annotations

from dtrain.autograd.tensor import Tensor
from dtrain.backend import random
from dtrain.ops import unary
from dtrain.ops._shape import norm_dim
from dtrain.ops.embedding import one_hot
from dtrain.ops.reduce import argmax
from dtrain.ops.shape import movedim
from dtrain.ops.softmax import softmax


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau) along ``dim``; ``hard`` gives the one-hot sample with the gradient of the soft one.

    Source: Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2017. ``eps`` has no effect.
    """
    dim = norm_dim(dim, logits.ndim)
    drawn = random.exponential(tuple(logits.shape), logits.dtype, generator=random.default_generator(logits.device))
    soft = softmax((logits - unary.log(Tensor._wrap(drawn))) / tau, dim)
    if not hard:
        return soft
    sample = movedim(one_hot(argmax(soft, dim), logits.shape[dim]), -1, dim).to(soft.dtype)  # type: ignore[attr-defined]
    return sample - soft.detach() + soft
