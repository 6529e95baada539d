"""One line an operation: the function, and its inputs as dims, where letters are dynamic sizes.

"b t 3" holds normal numbers, "+b 3" positive ones, "i4:b" integers of [0, 4), "?b t" bools; "h:" and "d:" before dims
are float16 and float64 numbers.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

import dtrain
from dtrain import nn
from dtrain.nn import functional as F

EXAMPLE = {"b": 4, "t": 6, "s": 5}  # sizes at export
SIZES = ({"b": 1, "t": 1, "s": 3}, {"b": 3, "t": 8, "s": 2}, {"b": 7, "t": 5, "s": 9})  # sizes to compare at


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in eval mode whose state is random but always the same."""
    dtrain.manual_seed(0)
    module = make().eval()
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.copy_(dtrain.rand(*buffer.shape) + 0.5)
    for p in module.parameters():
        p.data.add_(dtrain.randn(*p.shape) * 0.1)
    return module


def inplace(x: Any) -> Any:
    y = x * 2
    y += x
    y.clamp_(-1, 1).mul_(3)
    return y + x


def filled(x: Any) -> Any:
    y = x + 0
    y[y > 0.5] = -1.0
    y.masked_fill_(x < -0.5, 2.0)
    return y, dtrain.zeros(x.shape[0], 2).fill_(3), (x * 2).zero_()


def written(x: Any) -> Any:
    out = dtrain.zeros(x.shape[0], x.shape[1])
    out.copy_(x[:, :, 0])
    out.add_(1)
    mask = dtrain.full((x.shape[1], x.shape[1]), 3.0).triu_(1)
    return out @ mask


def changing(x: Any) -> Any:
    c = dtrain.tensor([1.0])
    y = x + c
    c.mul_(3)
    return y, x + c


def put(x: Any, i: Any) -> Any:
    return x.index_put((i,), dtrain.ones(3)), x.index_add(0, i, x[:2] * 0 + 1.5)


def bfloats(x: Any, y: Any) -> tuple:
    return x * y + 1, x.exp(), x.mean(-1), dtrain.cat([x, y])


def autocasted(x: Any, w: Any) -> Any:
    with dtrain.autocast("cpu"):
        y = (x @ w).exp()
        z = F.layer_norm(x @ w, (3,)) + y
    return y.float(), z.float()


MATH = {
    "arithmetic": (lambda x, y: (x + y, x - y, x * y, x / (y * y + 1), 2 - x, 1 / (x * x + 1)), "b t 3", "t 1"),
    "alpha": (lambda x, y: dtrain.add(x, y, alpha=3), "b 3", "b 3"),
    "integers": (lambda x, y: (x + y, x * y - 3, x / (y + 1), x // (y + 1), x % (y + 1), -x // (y + 1), -x % (y + 1), x.abs(), dtrain.div(-x, y + 1, rounding_mode="trunc")), "i9:b t", "i4:t"),
    "narrow integers": (lambda x: (dtrain.maximum(x.short(), x.short().t()[0, 0]), x.short() // 2, x.to(dtrain.int8) % 3, x.short() ** 2, x.to(dtrain.uint8) * 40 + 7, x.to(dtrain.int8) - 5, x.to(dtrain.int16) > 3), "i9:b t"),
    "promotion": (lambda x, i: (x * i, i * 1.5, i + 2, (i > 2) * x, (i > 1) + i), "b t", "i4:b t"),
    "floor division": (lambda x, y: (x // (y + 1), x % (y + 1), dtrain.div(x, y + 1, rounding_mode="trunc")), "b t", "+t"),
    "powers": (lambda x, y: (x**2, x**y, 2**x, x**0.5, x**-1), "+b t", "b t"),
    "sizes as numbers": (lambda x: (x / x.shape[1], x * (x.shape[0] + 1), x.sum(0) / x.size(0), x - x.numel() // 2), "b t"),
    "exp and log": (lambda x: (x.exp(), x.log(), x.log2(), x.log10(), x.log1p(), x.expm1(), x.sqrt(), x.rsqrt(), x.reciprocal()), "+b t"),
    "trigonometry": (lambda x: (x.sin(), x.cos(), x.tan(), x.sinh(), x.cosh(), x.tanh(), x.atan()), "b t"),
    "inverse trigonometry": (lambda x: (x.tanh().asin(), x.tanh().acos()), "b t"),
    "rounding": (lambda x: (x.floor(), x.ceil(), x.trunc(), x.round(), (x * 9).round(decimals=1), (x * 90).round(decimals=-1), x.sign()), "b t"),
    "rounding of integers": (lambda x: (x.floor(), x.round(), x.trunc(), x.sign()), "i4:b t"),
    "abs neg square": (lambda x: (x.abs(), -x, x.square()), "b t"),
    "clamp": (lambda x: (x.clamp(-0.5, 0.5), x.clamp(min=0), x.clamp(max=0.1), x.clamp(max=x.shape[0])), "b t"),
    "maximum": (lambda x, y: (dtrain.maximum(x, y), dtrain.minimum(x, y), x.clamp(min=y)), "b t", "t"),
    "lerp": (lambda x, y: dtrain.lerp(x, y, 0.3), "b t", "t"),
    "addcmul": (lambda x, y: (dtrain.addcmul(x, y, y, value=0.5), dtrain.addcdiv(x, x, y, value=2)), "b t", "+b t"),
    "where": (lambda c, x: (dtrain.where(c, x, 0.0), dtrain.where(c, x, -x), x.masked_fill(c, -1e9)), "?b t", "b t"),
    "comparisons": (lambda x, y: (x == y, x != y, x < y, x <= y, x > y, x >= y, x > 2, x == 1.5), "i4:b t", "i4:t"),
    "comparisons of mixed": (lambda x, i: (x > i, i <= x, x == True), "b t", "i4:b t"),  # noqa: E712
    "logic": (lambda x, y: (x & y, x | y, x ^ y, ~x, dtrain.logical_and(x, y), dtrain.logical_or(x, y), dtrain.logical_xor(x, y)), "?b t", "?b t"),
    "logic of numbers": (lambda x, y: (dtrain.logical_and(x, y), x.logical_not(), x & y, x | y, x ^ y, ~x), "i4:b t", "i4:b t"),
    "predicates": (lambda x: ((1 / x.floor()).isinf(), (x.floor() / x.floor()).isnan(), (1 / x.floor()).isfinite()), "b t"),
    "casts": (lambda x: (x.long(), x.double(), x.bool(), x.half(), x.to(dtrain.bfloat16).float(), (x > 0).float(), x.int()), "b t"),
    "halves": (lambda x, y: (x * y + 1, x.exp(), F.softmax(x @ y.transpose(0, 1), -1), x.sum(-1), x.amax(0), x > y), "h:b t", "h:b t"),
    "bfloat16": (lambda x, y: [r.float() for r in bfloats(x.bfloat16(), y.bfloat16())], "b t", "b t"),
    "autocast": (autocasted, "b t 3", "3 3"),
    "float64": (lambda x: (x * 2, x.exp(), x.mean(), F.softmax(x, -1), x.argmax(-1)), "d:b t"),
    "erf": (lambda x: (F.gelu(x), dtrain.ops.special.erf(x), dtrain.ops.special.erfc(x)), "b t"),
    "matmul": (lambda x, y, v: (x @ y, x @ v, v @ y, x[0] @ y[0], v @ v), "b t 3", "b 3 t", "3"),
    "matmul, broadcast": (lambda x, y: dtrain.matmul(x, y), "b 1 t 4", "3 4 t"),
    "mm and kin": (lambda x, y: (dtrain.mm(x, y), dtrain.addmm(x @ y, x, y, beta=2, alpha=3), dtrain.outer(x[0], y[0])), "b 3", "3 t"),
    "einsum": (lambda x, y: (dtrain.einsum("bti,bsi->bts", x, y), dtrain.einsum("...i,...i", x, x), dtrain.einsum("bti->", x)), "b t 3", "b s 3"),
    "linear": (seeded(lambda: nn.Linear(3, 5)), "b t 3"),
    "linear, 2-D without bias": (seeded(lambda: nn.Linear(3, 5, bias=False)), "b 3"),
    "linear, 1-D": (seeded(lambda: nn.Linear(3, 5)), "3"),
}

REDUCTIONS = {
    "sum": (lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True), (x > 0).sum(-1)), "b t 3"),
    "mean": (lambda x: (x.mean(), x.mean(1), x.mean((0, 2), keepdim=True)), "b t 3"),
    "var": (lambda x: (x.var(-1), x.std((1, 2)), x.var(1, correction=0), x.var(2, keepdim=True)), "b t 3"),
    "prod": (lambda x: (x.prod(), x.prod(1), x.prod(2, keepdim=True)), "b t 3"),
    "amax": (lambda x: (x.amax(), x.amin(1), x.amax((0, 2), keepdim=True), x.max(1).values, x.min(-1).indices, x.max()), "b t 3"),
    "amax of integers": (lambda x: (x.amax(1), x.amin(), (x > 1).amax(0)), "i9:b t"),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmin(-1, keepdim=True), x.argmax(keepdim=True)), "b t 3"),
    "any": (lambda x: (x.any(), x.all(1), (x == x).all(), x.any(0, keepdim=True)), "?b t"),
    "any of numbers": (lambda x: (x.any(1), x.all(), x.count_nonzero(0)), "i2:b t"),
    "cumsum": (lambda x: (x.cumsum(1), x.cumsum(0), (x > 0).cumsum(1)), "b t"),
    "logsumexp": (lambda x: (x.logsumexp(1), x.logsumexp((0, 1), keepdim=True)), "b t"),
    "norm": (lambda x: (x.norm(), x.norm(dim=1), x.norm(1, dim=0), x.norm(3, dim=1, keepdim=True), F.normalize(x)), "b t"),
    "sort": (lambda x: (*x.sort(1), *x.sort(0, descending=True), x.argsort(1)), "b t"),
    "sort of equals": (lambda x: (x.argsort(1), x.argsort(1, descending=True)), "i2:b t"),
    "topk": (lambda x: (*x.topk(2), *x.topk(1, 0, largest=False)), "b 3"),
}

SHAPES = {
    "reshape": (lambda x: (x.reshape(-1), x.reshape(x.shape[0], -1), x.view(x.size(0), x.size(1) * 6), x.reshape(6, -1), x.flatten(1)), "b t 6"),
    "reshape of two sizes": (lambda x: (x.view(x.shape[0], x.shape[1], 2, 3), x.reshape(x.shape[1], x.shape[0], 6), x.flatten(0, 1)), "b t 6"),
    "unflatten": (lambda x: (x.unflatten(-1, (2, 3)), x.unflatten(2, (-1, 2))), "b t 6"),
    "squeeze": (lambda x: (x.squeeze(-1), x.squeeze(1), x.unsqueeze(0), x.unsqueeze(-1), x[:, 0].unsqueeze(1)), "b 1 t 1"),
    "permute": (lambda x: (x.permute(2, 0, 1), x.transpose(0, 1), x.mT, x.movedim(0, 2), x[0].t()), "b t 3"),
    "expand": (lambda x: (x.expand(-1, 4, -1), x.expand(2, x.shape[0], 3, x.shape[2]), x.expand(x.size(0), 1, x.size(2))), "b 1 t"),
    "cat and stack": (lambda x, y: (dtrain.cat([x, y], 1), dtrain.cat([x, x]), dtrain.stack([x, x + 1], 1), dtrain.stack([x, x], -1)), "b t", "b s"),
    "cat of two dtypes": (lambda x, i: dtrain.cat([x, i]), "b t", "i4:b t"),
    "split": (lambda x: (*x.split(2, -1), *x.chunk(3, -1), *x.split([1, 2, 3], 2), *x.unbind(2)), "b t 6"),
    "narrow and select": (lambda x: (x.narrow(1, 0, 1), x.select(0, -1), x.narrow(0, x.shape[0] - 1, 1)), "b t"),
    "flip": (lambda x: (x.flip(0), x.flip(0, 1), x.flip(-1)), "b t"),
    "roll": (lambda x: (x.roll(1, 0), x.roll((1, -2), (0, 1)), x.roll(3)), "b 5"),
    "repeat": (lambda x: (x.repeat(2, 1), x.repeat(3, 1, 2), x.tile(2), x.repeat_interleave(3, 1), x.repeat_interleave(2)), "b t"),
    "triangles": (lambda x: (x.tril(), x.triu(1), x.tril(-1)), "b t t"),
    "meshgrid": (lambda x, y: dtrain.meshgrid(x, y, indexing="xy"), "b", "t"),
    "clone and detach": (lambda x: (x.clone(), x.detach() + 1, x.data * 2, x.contiguous()), "b t"),
    "a constant that changes": (changing, "b t"),
    "device": (lambda x: x.to("cpu") + x.cpu(), "b t"),
    "in place": (inplace, "b t"),
    "in place, by mask": (filled, "b t"),
    "in place, into a new tensor": (written, "b t 2"),
    "creation": (
        lambda x: (x + dtrain.zeros(x.shape[0], 1), dtrain.ones_like(x), dtrain.full((x.shape[1],), 7), x.new_full((2, 2), 0.5), dtrain.eye(x.shape[1])),
        "b t",
    ),
    "creation of fixed sizes": (lambda x: (x + dtrain.arange(3), x * dtrain.eye(3)[0], x + dtrain.tensor([1.0, 2, 3]), x + dtrain.ones(3)), "b 3"),
    "arange": (
        lambda x: (dtrain.arange(x.shape[0]), dtrain.arange(1, x.shape[1] + 1, 2), dtrain.arange(x.shape[0], dtype=dtrain.float32), dtrain.arange(0.5, x.shape[1])),
        "b t",
    ),
    "formulas of sizes": (
        lambda x: (x[:, x.shape[1] // 2 :], x[: x.size(0) - 1], dtrain.zeros(-(-x.shape[1] // 3)), dtrain.zeros(x.shape[1] % 4 + 1), dtrain.arange(2 * x.shape[0] + 1)),
        "b t",
    ),
    "padding to a multiple": (lambda x: dtrain.cat([x, dtrain.zeros(x.shape[0], -x.shape[1] % 4)], 1).reshape(x.shape[0], -1, 4), "b t"),
}

INDEXING = {
    "slices": (lambda x: (x[1:], x[:, :-1], x[..., ::2], x[:, None, 0], x[-1], x[0, ..., None], x[:, -2:, 1:2], x[None, 0, 0, 0], x[::-1, :, 2:0:-1]), "b t 3"),
    "slices up to a size": (lambda x, y: (x[: y.shape[0]], x[:, y.shape[0] - 1 :]), "t t", "b 2"),
    "one index tensor": (lambda x, i: (x[i], x[:, i], x[..., i % 3], x[i[0]], x[-i - 1]), "4 4 3", "i4:b t"),
    "two index tensors": (lambda x, i, j: (x[i, j], x[:, i, j % 3], x[i, :, j % 3], x[i, 0, j[:1] % 3], x[:, i]), "4 4 3", "i4:b", "i4:b"),
    "arange and index": (lambda x, i: x[dtrain.arange(x.shape[0]), i], "b 4 3", "i4:b"),
    "mask": (lambda x, m: (x[m], x[m, 1:], dtrain.masked_select(x, m[:, :, None]), x[:, m[0]]), "b t 3", "?b t"),
    "gather": (lambda x, i: (x.gather(1, i), x.gather(0, i % x.shape[0])), "b 4", "i4:b 4"),
    "gather, smaller index": (lambda x, i: x.gather(1, i), "9 4", "i4:b 2"),
    "take_along_dim": (lambda x, i: (dtrain.take_along_dim(x, i, 1), dtrain.take_along_dim(x, x.argsort(1), 1)), "b 4", "i4:b 2"),
    "index_select": (lambda x, i: (x.index_select(0, i), x.index_select(1, i)), "4 4 t", "i4:b"),
    "scatter": (lambda x, i: (x.scatter(1, i[:, :1], 5.0), x.scatter(1, i[:, :1], x * 2), x.scatter_add(1, i, x)), "b 4", "i4:b 4"),
    "index_put": (put, "4 3", "i2:2"),
    "write at a mask": (lambda x, m: x.index_put((m,), dtrain.tensor(2.0)), "b t 3", "?b t"),
    "nonzero": (lambda x: (x.nonzero(), dtrain.where(x > 0)[0]), "b t"),
    "embedding": (seeded(lambda: nn.Embedding(9, 3)), "i9:b t"),
    "one hot": (lambda i: F.one_hot(i, 4), "i4:b t"),
}

LAYERS = {
    "activations": (
        lambda x: (
            F.relu(x), F.gelu(x), F.gelu(x, approximate="tanh"), F.silu(x), F.elu(x, 0.5), F.selu(x), F.celu(x, 2.0), F.leaky_relu(x, 0.2), F.mish(x),
            F.softplus(x), F.softplus(x, 2, 1.5), F.logsigmoid(x), F.hardtanh(x), F.relu6(x), F.hardsigmoid(x), F.hardswish(x), F.softshrink(x),
            F.hardshrink(x), F.threshold(x, 0.1, 20), F.sigmoid(x), F.softsign(x), F.tanhshrink(x), F.leaky_relu(x, 1.5),
        ),
        "b t",
    ),  # fmt: skip
    "in-place activations": (nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)), "b t"),
    "glu": (lambda x: F.glu(x), "b 4"),
    "prelu": (seeded(lambda: nn.PReLU(3)), "b 3 t"),
    "softmax": (lambda x: (F.softmax(x, -1), F.log_softmax(x, 1), F.softmax(x, 0), F.softmin(x, 2)), "b t 3"),
    "dropout in eval": (seeded(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3), nn.Dropout2d(0.5))), "b 3"),
    "layer norm": (seeded(lambda: nn.LayerNorm(3)), "b t 3"),
    "layer norm over two dims": (seeded(lambda: nn.LayerNorm((2, 3), eps=1e-3)), "b 2 3"),
    "layer norm without weights": (lambda x: F.layer_norm(x, (3,)), "b t 3"),
    "layer norm without bias": (seeded(lambda: nn.LayerNorm(3, bias=False)), "b t 3"),
    "rms norm": (seeded(lambda: nn.RMSNorm(3, eps=1e-5)), "b t 3"),
    "rms norm without weights": (lambda x: F.rms_norm(x, (3,)), "b t 3"),
    "batch norm": (seeded(lambda: nn.BatchNorm1d(3)), "b 3"),
    "batch norm, 2-D": (seeded(lambda: nn.BatchNorm2d(3)), "b 3 t t"),
    "group norm": (seeded(lambda: nn.GroupNorm(2, 4)), "b 4 t"),
    "instance norm": (lambda x: F.instance_norm(x), "b 2 4 4"),
    "conv1d": (seeded(lambda: nn.Conv1d(2, 4, 3, padding=1)), "b 2 t"),
    "conv2d": (seeded(lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)), "b 2 t t"),
    "conv2d, dilated, same": (seeded(lambda: nn.Conv2d(2, 4, (3, 2), padding="same", dilation=2, bias=False)), "b 2 t s"),
    "conv2d without batch": (seeded(lambda: nn.Conv2d(2, 4, 3, padding=1)), "2 t s"),
    "conv3d": (seeded(lambda: nn.Conv3d(1, 2, 2, padding=1)), "b 1 t 3 4"),
    "conv_transpose": (seeded(lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1)), "b 2 t t"),
    "conv_transpose1d": (seeded(lambda: nn.ConvTranspose1d(4, 2, 4, stride=3, groups=2, dilation=2)), "b 4 t"),
    "max_pool": (lambda x: (F.max_pool2d(x, 2), F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 3, 2, ceil_mode=True)), "b 2 8 7"),
    "max_pool, dynamic": (lambda x: (F.max_pool2d(x, 3, 1, 1), F.max_pool2d(x, 3, 2, 1)), "b 2 t s"),
    "max_pool1d and 3d": (lambda x: (F.max_pool1d(x[:, :, 0, 0], 2), F.max_pool3d(x, 2, dilation=2), F.max_pool2d(x[0], 2)), "b 2 5 6 7"),
    "max_pool with indices": (lambda x: (*F.max_pool2d(x, 2, return_indices=True), *F.max_pool1d(x[0, :, 0], 3, 1, 1, return_indices=True)), "b 2 6 7"),
    "avg_pool": (
        lambda x: (
            F.avg_pool2d(x, 2), F.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 2, divisor_override=3),
            F.avg_pool2d(x, 3, 2, ceil_mode=True), F.avg_pool2d(x[0], 2),
        ),
        "b 2 8 7",
    ),  # fmt: skip
    "avg_pool, dynamic": (lambda x: (F.avg_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), F.avg_pool1d(x[0], 1)), "b 2 t s"),
    "adaptive pools": (lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1), F.adaptive_avg_pool2d(x, (2, 3)), F.adaptive_max_pool2d(x, 3)), "b 2 6 9"),
    "adaptive pools, dynamic": (lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)), "b 2 t s"),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), "b 2 t 4", "b 2 s 4", "b 2 s 3"),
    "causal attention": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.7), "b 2 t 4"),
    "causal attention of two lengths": (lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True), "b 2 t 4", "b 2 s 4"),
    "attention with a bool mask": (lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), "b 2 t 4", "b 2 s 4", "?b 1 t s"),
    "attention with a float mask": (lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), "b 2 t 4", "b 2 s 4", "t s"),
    "attention with a built mask": (
        lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=dtrain.ones(q.shape[2], q.shape[2], dtype=dtrain.bool).tril()), "b 2 t 4",
    ),  # fmt: skip
    "grouped attention": (lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True), "b 6 t 4", "b 2 t 4"),
    "attention in three dims": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), "b t 4"),
}

CASES = {**MATH, **REDUCTIONS, **SHAPES, **INDEXING, **LAYERS}
_DTYPES = {"h": dtrain.float16, "d": dtrain.float64}


def arrays(specs: tuple, sizes: dict[str, int], seed: int = 0) -> list[np.ndarray]:
    """Inputs for a case at these sizes."""
    rng = np.random.default_rng(seed)
    return [_array(spec, sizes, rng) for spec in specs]


def _array(spec: str, sizes: dict[str, int], rng: Any) -> np.ndarray:
    kind, _, dims = spec.rpartition(":")
    shape = tuple(int(d) if d.isdigit() else sizes[d] for d in dims.strip("?+").split())
    if kind.startswith("i"):
        return rng.integers(0, int(kind[1:]), shape)
    if dims.startswith("?"):
        return rng.random(shape) < 0.6
    values = rng.random(shape) * 2 + 0.5 if dims.startswith("+") else rng.standard_normal(shape)
    return values.astype(_DTYPES[kind].np if kind else np.float32)


def axes(specs: tuple) -> dict[str, dict[int, str]]:
    """``dynamic_axes`` for a case whose inputs are called x0, x1, ..."""
    dims = [spec.rpartition(":")[2].strip("?+").split() for spec in specs]
    return {f"x{i}": {axis: d for axis, d in enumerate(ds) if not d.isdigit()} for i, ds in enumerate(dims)}
