"""Scaled dot-product attention as one operation (Vaswani et al. 2017, "Attention Is All You Need").

The probabilities are kept for a first-order backward, which is cheaper than computing them again; a backward that is
itself differentiated computes them anew from query and key, so that nothing is lost from second derivatives.
"""

from __future__ import annotations

import math
from typing import Any

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import random as rng
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops._shape import unbroadcast
from dtrain.ops.shape import repeat_interleave


class Attention(Op):
    """softmax(q @ k.T * scale + mask) @ v; q (..., L, E), k (..., S, E), v (..., S, Ev), mask (..., L, S)."""

    def __init__(self, scale: float, is_causal: bool, dropout_p: float) -> None:
        self.scale, self.is_causal, self.dropout_p = scale, is_causal, dropout_p
        self.probs: Any = None
        self.kept: Any = None  # dropout's mask, scaled

    def forward(self, xp: Any, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        probs = _softmax(xp, self._scores(xp, q, k, mask))
        self.saved = (q, k, v, mask)
        self.probs = probs
        if self.dropout_p:
            keep = rng.dropout_mask(xp, probs.shape, self.dropout_p)
            self.kept = keep.astype(probs.dtype) * probs.dtype.type(1 / (1 - self.dropout_p))
            probs = probs * self.kept
        return xp.matmul(probs, v)

    def _scores(self, xp: Any, q: Any, k: Any, mask: Any) -> Any:
        """Scaled scores, minus infinity where nothing may be seen. In place on its own array."""
        scores = xp.matmul(q * q.dtype.type(self.scale), k.swapaxes(-1, -2))
        if self.is_causal:
            scores += _causal(xp, scores.shape[-2:], scores.dtype)
        if mask is not None:
            if mask.dtype == bool:
                return xp.where(mask, scores, scores.dtype.type(-math.inf))
            scores = scores + mask
        return scores

    def backward(self, xp: Any, g: Any) -> tuple:
        q, k, v, mask = self.unpack(xp)
        probs = self._with_history(xp, q, k, mask) if xp.builds_graph else self.probs
        used = probs if self.kept is None else probs * (_const(self.kept) if xp.builds_graph else self.kept)
        gq = gk = gm = None
        gv = unbroadcast(xp, xp.matmul(xp.swapaxes(used, -1, -2), g), v.shape) if self.needs(2) else None
        if self.needs(0) or self.needs(1) or (len(self.edges) > 3 and self.needs(3)):
            gp = xp.matmul(g, xp.swapaxes(v, -1, -2))
            if self.kept is not None:
                gp = gp * (_const(self.kept) if xp.builds_graph else self.kept)
            gs = self._through_softmax(xp, probs, gp)
            gm = unbroadcast(xp, gs, mask.shape) if len(self.edges) > 3 and self.needs(3) else None
            gq = unbroadcast(xp, xp.matmul(gs, k) * self.scale, q.shape) if self.needs(0) else None
            gk = unbroadcast(xp, xp.matmul(xp.swapaxes(gs, -1, -2), q) * self.scale, k.shape) if self.needs(1) else None
        return (gq, gk, gv, gm)[: len(self.edges)]

    @staticmethod
    def _through_softmax(xp: Any, probs: Any, gp: Any) -> Any:
        if xp.builds_graph:
            weighted = gp * probs
            return weighted - probs * xp.sum(weighted, axis=-1, keepdims=True)
        gp *= probs  # its own array: fresh from matmul
        gp -= probs * xp.sum(gp, axis=-1, keepdims=True)
        return gp

    def _with_history(self, xp: Any, q: Any, k: Any, mask: Any) -> Any:
        """The probabilities as a function of q and k again, for a graph of the backward."""
        from dtrain.ops.softmax import softmax

        scores = xp.matmul(q * self.scale, xp.swapaxes(k, -1, -2))
        hidden = _const(self.probs == 0)
        if mask is not None and mask._array.dtype != bool:
            scores = scores + mask
        return softmax(xp.where(hidden, xp.zeros_like(scores) - math.inf, scores), -1)

    def release(self) -> None:
        super().release()
        self.probs = self.kept = None


def _const(array: Any) -> Tensor:
    return Tensor._wrap(array)


def _causal(xp: Any, shape: tuple, dtype: Any) -> Any:
    """0 on and below the diagonal, minus infinity above: row i sees columns up to i."""
    return xp.triu(xp.full(shape, -math.inf, dtype), 1)


def _softmax(xp: Any, scores: Any) -> Any:
    """In place; rows that see nothing become zeros, not NaN."""
    top = xp.max(scores, axis=-1, keepdims=True)
    top = xp.where(top == -math.inf, xp.zeros_like(top), top)
    scores -= top
    probs = xp.exp(scores)
    total = xp.sum(probs, axis=-1, keepdims=True)
    probs /= xp.where(total == 0, xp.ones_like(total), total)
    return probs


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value: (..., L, E), (..., S, E), (..., S, Ev) to (..., L, Ev).

    ``attn_mask`` broadcasts to (..., L, S): bool (True takes part) or floating (added). ``is_causal`` lets row i see
    columns up to i. ``scale`` is 1/sqrt(E) unless given. With ``enable_gqa`` key and value may have fewer heads (dim -3),
    a divisor of query's. Raises ShapeError, DtypeError and ArgumentError for operands that do not fit.
    """
    _check(query, key, value, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        heads = query.shape[-3]
        for name, x in (("key", key), ("value", value)):
            if heads % x.shape[-3]:
                raise ShapeError(f"scaled_dot_product_attention: {name} has {x.shape[-3]} heads, which do not divide query's {heads}")
        key, value = (repeat_interleave(x, heads // x.shape[-3], -3) if x.shape[-3] != heads else x for x in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    inputs = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    return apply(Attention(factor, is_causal, float(dropout_p)), *inputs)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool) -> None:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if min(query.ndim, key.ndim, value.ndim) < 2 or query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"scaled_dot_product_attention: expected query (..., L, E), key (..., S, E) and value (..., S, Ev), got {shapes}"
        )
    if not query.dtype == key.dtype == value.dtype:
        raise DtypeError(f"scaled_dot_product_attention: expected one dtype, got {query.dtype}, {key.dtype} and {value.dtype}")
    if mask is not None and is_causal:
        raise ArgumentError("scaled_dot_product_attention: give attn_mask or is_causal, not both; combine them in the mask")
    if mask is not None and mask._array.dtype.kind not in "bfV":
        raise DtypeError(f"scaled_dot_product_attention: attn_mask must be bool or floating, got {mask.dtype}")
    if not 0 <= dropout_p < 1:
        raise ArgumentError(f"scaled_dot_product_attention: dropout_p must be in [0, 1), got {dropout_p}")
