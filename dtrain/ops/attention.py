"""Scaled dot product attention as one operation that never holds all weights.

The weights of one sequence take length * length numbers a head; stored for backward they dominate memory, and written and
read several times they dominate time. Here a few rows of queries at a time go through scores, softmax and product while
their weights stay in the cache (Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021; Dao and others,
"FlashAttention", 2022). Backward needs, beside inputs and output, the log-sum-exp of each row only, and computes the weights
again: one matrix product more, and still faster than fetching them from memory. Causal rows skip the keys they cannot see.

Inside, q is (batch, kv heads, queries of each, L, E), k and v (batch, kv heads, 1, S, E): grouped queries share their heads
by broadcasting.
"""

from __future__ import annotations

import math
from typing import Any, Iterator

import numpy as np

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.backend.blocks import Scratch, row_dot, row_max, row_sum
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops._loss import floating
from dtrain.ops._shape import broadcast_shapes, one_dtype, unbroadcast
from dtrain.ops.dropout import keep as dropout_keep
from dtrain.ops.elementwise import where
from dtrain.ops.shape import broadcast_to, unsqueeze
from dtrain.ops.softmax import Softmax

_WEIGHTS = 1 << 17  # weights at a time on the CPU: 512 KiB of float32
_WEIGHTS_CUDA = 1 << 27
_CAUSAL_ROWS = 256


class Attention(Op):
    """y = dropout(softmax(scale * q k^T + mask)) v; a row whose keys are all masked gives 0.

    Inputs q (B, H, L, E), k and v (B, H / groups, S, .), the mask: None, or added to the scores, broadcasting.
    ``keep`` is a bool array of the weights' shape that dropout keeps, or None.
    """

    def __init__(self, scale: float, causal: bool, keep: Any = None, dropout: float = 0.0) -> None:
        self.scale, self.causal, self.keep, self.dropout = scale, causal, keep, dropout

    def forward(self, xp: Any, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        batch, heads, length, _ = q.shape
        y = xp.swapaxes(xp.empty((batch, length, heads, v.shape[3]), q.dtype), 1, 2)  # where heads are joined again for free
        self.saved = (q, k, v, mask, y)
        if xp.name == "meta":
            return y
        if k.shape[2] == 0:
            y[...] = 0
        q, k, v, mask = self._grouped(xp, q, k, v, mask)
        out = y.reshape(q.shape[:4] + v.shape[4:])
        self.log_sums = xp.empty(q.shape[:4] + (1,), q.dtype)
        scratch = Scratch()
        with np.errstate(divide="ignore", invalid="ignore"):
            for at, row, key in self._pieces(xp, q.shape, k.shape[3]):
                s = self._scores(xp, q, k, mask, at, row, key, scratch)
                top = row_max(xp, s, 4)
                top = xp.where(xp.isfinite(top), top, 0)
                s -= top
                xp.exp(s, out=s)
                sums = row_sum(xp, s, 4)
                self.log_sums[(*at, slice(None), row)] = xp.where(sums > 0, xp.log(sums) + top, np.inf)
                s *= 1 / xp.where(sums > 0, sums, 1)
                if self.keep is not None:
                    s *= self._kept(at, row, key)
                out[(*at, slice(None), row)] = xp.matmul(s, v[(*at, slice(None), key)])
        return y

    def _grouped(self, xp: Any, q: Any, k: Any, v: Any, mask: Any) -> tuple:
        """The operands in five dims, the heads split into (kv heads, queries of each)."""
        kv = k.shape[1]
        q = xp.reshape(q, (q.shape[0], kv, q.shape[1] // max(kv, 1), *q.shape[2:]))
        k, v = xp.expand_dims(k, 2), xp.expand_dims(v, 2)
        if mask is not None:
            split = (1, 1) if mask.shape[1] == 1 else q.shape[1:3]
            mask = xp.reshape(mask, (mask.shape[0], *split, *mask.shape[2:]))
        return q, k, v, mask

    def _pieces(self, xp: Any, shape: tuple[int, ...], keys: int) -> Iterator[tuple]:
        """((batch, heads), rows, keys) slices that cover all weights, each of a size to stay in the cache."""
        batch, heads, group, length, _ = shape
        if not keys:
            return
        limit = _WEIGHTS if xp.name == "numpy" else _WEIGHTS_CUDA
        rows = max(1, min(length, limit // max(1, group * keys)))
        if self.causal:
            rows = min(rows, _CAUSAL_ROWS)
        head = max(1, limit // max(1, rows * group * keys))
        item = max(1, head // max(heads, 1))
        for b in range(0, batch, item):
            for h in range(0, heads, min(head, heads)):
                at = (slice(b, min(b + item, batch)), slice(h, min(h + head, heads)))
                for r in range(0, length, rows):
                    stop = min(r + rows, length)
                    yield at, slice(r, stop), slice(0, min(stop, keys) if self.causal else keys)

    def _scores(self, xp: Any, q: Any, k: Any, mask: Any, at: tuple, row: slice, key: slice, scratch: Scratch) -> Any:
        rows = q[(*at, slice(None), row)] * self.scale
        s = scratch.empty(xp, "scores", (*rows.shape[:4], key.stop), q.dtype)
        xp.matmul(rows, xp.swapaxes(k[(*at, slice(None), key)], 3, 4), out=s)
        if mask is not None:
            wanted = (*at, slice(None), row, key)
            s += mask[tuple(slice(None) if n == 1 else part for n, part in zip(mask.shape, wanted))]
        if self.causal:  # the keys from row.start on are those that some rows do not see
            hidden = np.triu(np.full((row.stop - row.start, max(key.stop - row.start, 0)), -np.inf, np.float32), 1)
            s[..., row.start :] += xp.asarray(hidden)
        return s

    def _kept(self, at: tuple, row: slice, key: slice) -> Any:
        return self.keep[(*at, slice(None), row, key)] * self.keep_scale

    @property
    def keep_scale(self) -> Any:
        return np.float32(1 / (1 - self.dropout)) if self.dropout < 1 else np.float32(0)

    def backward(self, xp: Any, g: Any) -> tuple:
        q, k, v, mask, y = self.unpack(xp)
        if xp.builds_graph:
            return self._graph_grads(xp, g, q, k, v, mask)
        gq, gk, gv = xp.empty_like(q) if k.shape[2] else xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v)
        gm = xp.zeros(mask.shape, g.dtype) if len(self.edges) > 3 and self.needs(3) else None
        self._raw_grads(xp, (g, y), (q, k, v, mask), (gq, gk, gv, gm))
        return gq, gk, gv, gm

    def _raw_grads(self, xp: Any, outer: tuple, inputs: tuple, grads: tuple) -> None:
        """Write the gradients into ``grads``, with the inputs' shapes."""
        (q, k, v, mask), (gq, gk, gv, gm) = self._grouped(xp, *inputs), self._grouped(xp, *grads)
        g, y = [a.reshape(q.shape[:4] + v.shape[4:]) for a in outer]
        scratch = Scratch()
        for at, row, key in self._pieces(xp, q.shape, k.shape[3]):
            rows, keys = (*at, slice(None), row), (*at, slice(None), key)
            p = self._scores(xp, q, k, mask, at, row, key, scratch)
            p -= self.log_sums[rows]
            xp.exp(p, out=p)
            along = row_dot(xp, g[rows], y[rows], 4)
            s = xp.matmul(g[rows], xp.swapaxes(v[keys], 3, 4), out=scratch.empty(xp, "slopes", p.shape, p.dtype))
            dropped = p
            if self.keep is not None:
                kept = self._kept(at, row, key)
                s *= kept
                dropped = p * kept
            gv[keys] += _over_group(xp, xp.matmul(xp.swapaxes(dropped, 3, 4), g[rows]))
            s -= along
            s *= p
            if gm is not None:
                wanted = tuple(slice(None) if n == 1 else part for n, part in zip(gm.shape, (*rows, key)))
                gm[wanted] += unbroadcast(xp, s, gm[wanted].shape)
            gq[rows] = xp.matmul(s, k[keys])
            gk[keys] += _over_group(xp, xp.matmul(xp.swapaxes(s, 3, 4), q[rows])) * self.scale
        gq *= self.scale

    def _graph_grads(self, xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any) -> tuple:
        shape, masked = tuple(q.shape), mask
        q, k, v, mask = self._grouped(xp, q, k, v, mask)
        g = xp.reshape(g, (*q.shape[:4], v.shape[4]))
        p = self._weights(xp, q, k, mask)
        s = xp.matmul(g, xp.swapaxes(v, 3, 4))
        dropped = p
        if self.keep is not None:
            kept = Tensor._wrap(self.keep * self.keep_scale)
            s, dropped = s * kept, p * kept
        gv = xp.sum(xp.matmul(xp.swapaxes(dropped, 3, 4), g), axis=2)
        s = p * (s - xp.sum(s * p, axis=4, keepdims=True))
        gq = xp.reshape(xp.matmul(s, k) * self.scale, shape)
        gk = xp.sum(xp.matmul(xp.swapaxes(s, 3, 4), q), axis=2) * self.scale
        gm = None
        if len(self.edges) > 3 and self.needs(3):
            gm = xp.reshape(unbroadcast(xp, s, tuple(mask.shape)), tuple(masked.shape))
        return gq, gk, gv, gm

    def _weights(self, xp: Any, q: Any, k: Any, mask: Any) -> Any:
        """softmax(scale * q k^T + mask) in full, rows without keys 0."""
        s = xp.matmul(q * self.scale, xp.swapaxes(k, 3, 4))
        hidden = self._hidden(q, k, mask)
        if hidden is None:
            return xp.run(Softmax(4), s if mask is None else s + mask)
        raw = namespace.of(hidden)
        dead = Tensor._wrap(raw.all(hidden, axis=4, keepdims=True))
        if mask is not None:
            s = s + mask
        if self.causal:
            s = xp.where(Tensor._wrap(hidden), xp.ones_like(s) * -float("inf"), s)
        return xp.where(dead, xp.zeros_like(s), xp.run(Softmax(4), xp.where(dead, xp.zeros_like(s), s)))

    def _hidden(self, q: Any, k: Any, mask: Any) -> Any:
        """Raw bool: which keys no row may see; None if all are seen."""
        raw = namespace.of(q._array)
        hidden = None if mask is None else mask._array == -np.inf
        if self.causal:
            later = raw.asarray(np.triu(np.ones((q.shape[3], k.shape[3]), bool), 1))
            hidden = later[None, None, None] if hidden is None else hidden | later
        return hidden


def _over_group(xp: Any, a: Any) -> Any:
    """The sum over the queries of each key head, whose axis stays as 1."""
    return a if a.shape[2] == 1 else xp.sum(a, axis=2, keepdims=True)


def _additive(query: Tensor, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask as what is added to the scores, in four dims. Raises for a dtype or shape that does not fit."""
    kind = mask._array.dtype.kind
    if kind == "b":
        mask = where(mask, Tensor._wrap(namespace.of(query._array).zeros((), query._array.dtype)), -math.inf)
    elif kind not in "fV":
        raise DtypeError(f"attn_mask must be bool (True takes part) or floating (added to the scores), got {mask.dtype}")
    try:
        fits = np.broadcast_shapes(tuple(mask.shape), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"attn_mask of shape {tuple(mask.shape)} does not broadcast to the weights' shape {shape} (..., queries, keys)")
    while mask.ndim < 2:
        mask = unsqueeze(mask, 0)
    return mask


def _batched(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """x with its leading dims broadcast to ``lead`` and brought to two, (batch, heads)."""
    if tuple(x.shape[:-2]) != lead:
        x = broadcast_to(x, (*lead, *x.shape[-2:]))
    if len(lead) == 2:
        return x
    heads = lead[-1] if lead else 1
    return x.reshape((math.prod(lead[:-1]), heads, *x.shape[-2:]))  # type: ignore[attr-defined]


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
    """softmax(query key^T * scale + attn_mask) value, for query (..., L, E), key (..., S, E) and value (..., S, Ev).

    ``attn_mask`` broadcasts to (..., L, S): bool, True taking part, or added to the scores. ``is_causal`` lets query i see
    keys 0 to i. ``scale`` is 1 / sqrt(E) by default. With ``enable_gqa`` each head of key and value serves several of query.
    """
    floating("scaled_dot_product_attention", query, key, value)
    for x in (query, key, value):
        if x.ndim < 2:
            raise ShapeError(f"scaled_dot_product_attention expects (..., length, width), got shape {tuple(x.shape)}")
    one_dtype("scaled_dot_product_attention", query, key, value)
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            "scaled_dot_product_attention: query and key need one width, key and value one length; got "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
        )
    if is_causal and attn_mask is not None:
        raise ArgumentError("scaled_dot_product_attention takes attn_mask or is_causal=True, not both; put the causal part into the mask")
    if not 0.0 <= dropout_p <= 1.0:
        raise ArgumentError(f"scaled_dot_product_attention: dropout_p is {dropout_p}; expected 0 to 1")
    lead, kv_lead = _leads(query, key, value, enable_gqa)
    shape = (*lead, query.shape[-2], key.shape[-2])
    mask = None
    if attn_mask is not None:
        mask = _additive(query, attn_mask, shape)
        mask = _batched(mask, lead if mask.ndim > 2 and len(lead) != 2 else (1,) * (4 - mask.ndim) + tuple(mask.shape[:-2]))
    q, k, v = _batched(query, lead), _batched(key, kv_lead), _batched(value, kv_lead)
    keep = None
    if dropout_p:
        kv = k.shape[1]
        keep = dropout_keep(q, (q.shape[0], kv, q.shape[1] // kv, *shape[-2:]), dropout_p)
    op = Attention(1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale, is_causal, keep, dropout_p)
    out = apply(op, q, k, v) if mask is None else apply(op, q, k, v, mask)
    return out if len(lead) == 2 else out.reshape((*lead, *out.shape[-2:]))  # type: ignore[attr-defined]


def _leads(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> tuple[tuple, tuple]:
    """The common leading dims of the queries, and those of keys and values, whose heads may be fewer."""
    leads = [tuple(x.shape[:-2]) for x in (query, key, value)]
    try:
        if not grouped:
            lead = broadcast_shapes(*leads)
            return lead, lead
        heads, kv = leads[0][-1], leads[1][-1]
        batch = broadcast_shapes(*[lead[:-1] for lead in leads])
        if leads[2][-1] == kv and kv and heads % kv == 0:
            return (*batch, heads), (*batch, kv)
    except (ValueError, IndexError):
        pass
    what = "heads of key and value equal, and dividing those of query" if grouped else "leading dims that broadcast (see enable_gqa for fewer heads)"
    raise ShapeError(f"scaled_dot_product_attention needs {what}; got {', '.join(str(tuple(x.shape)) for x in (query, key, value))}")
