"""The operations behind nn.functional against PyTorch: values, dtypes, gradients, second derivatives, one line a case."""

import numpy as np
import pytest
import torch
import torch.nn.functional

import dtrain
import dtrain.nn.functional

pytestmark = pytest.mark.parity

FIRST = "PyTorch has no second derivative"
F, P, U, T, S, B, I = "normal", "positive", "unit", "targets", "signs", "bool", "indices"
IMAGE, SEQUENCE, VOLUME = (F, (2, 4, 7, 6)), (F, (2, 4, 9)), (F, (1, 2, 5, 4, 5))
SCORES, DENSE = (F, (6, 5)), (F, (2, 5, 3, 2))
HEADS = ((F, (2, 4, 5, 3)), (F, (2, 4, 6, 3)), (F, (2, 4, 6, 2)))


def data(kind, shape, seed):
    rng = np.random.default_rng(seed + 7)
    if kind == T:
        return rng.integers(0, 5, shape)
    if kind == I:
        return rng.integers(0, 7, shape)
    if kind == B:
        return rng.random(shape) > 0.4
    if kind in (P, U):
        return rng.random(shape) * (0.9 if kind == U else 2) + 0.05
    values = rng.standard_normal(shape)
    return np.sign(values) if kind == S else values * 2


def some_ignored(target, at):
    target = target.clone()
    target[at] = -100
    return target


# name (the first word is the function), the call, operands
CASES = [
    *[(name, lambda f, m, x, name=name: getattr(f, name)(x), (F, (4, 5)))
      for name in """relu leaky_relu elu gelu silu softplus logsigmoid mish selu celu relu6 hardtanh hardswish softsign
      tanhshrink softshrink hardshrink""".split()],
    ("relu edges", lambda f, m, x: f.relu(x * 0) + f.relu6(x * 0 + 6) + f.hardtanh(x * 0 + 1) + f.elu(x * 0), (F, (3,))),
    ("hardswish edges", lambda f, m, x: f.hardswish(x * 0 + 3) + f.hardswish(x * 0 - 3), (F, (3,))),
    ("hardsigmoid", lambda f, m, x: f.hardsigmoid(x), FIRST, (F, (4, 5))),
    ("hardsigmoid edges", lambda f, m, x: f.hardsigmoid(x * 0 + 3) + f.hardsigmoid(x * 0 - 3), FIRST, (F, (3,))),
    ("shrink edges", lambda f, m, x: f.softshrink(x * 0 + 0.5) + f.hardshrink(x * 0 - 0.5), (F, (3,))),
    ("gelu tanh", lambda f, m, x: f.gelu(x, approximate="tanh"), (F, (4, 5))),
    ("gelu far", lambda f, m, x: f.gelu(x * 10), (F, (4, 5))),
    ("leaky_relu", lambda f, m, x: f.leaky_relu(x, 0.3), (F, (4, 5))),
    ("elu alpha", lambda f, m, x: f.elu(x, 0.3), (F, (4, 5))),
    ("celu alpha", lambda f, m, x: f.celu(x, 0.5), (F, (4, 5))),
    ("softplus", lambda f, m, x: f.softplus(x * 8, 2.0, 5.0), (F, (4, 5))),
    ("softplus far", lambda f, m, x: f.softplus(x * 100), (F, (4, 5))),
    ("logsigmoid far", lambda f, m, x: f.logsigmoid(x * 100), (F, (4, 5))),
    ("silu far", lambda f, m, x: f.silu(x * 100), (F, (4, 5))),
    ("threshold", lambda f, m, x: f.threshold(x, 0.2, -3.0), (F, (4, 5))),
    ("prelu", lambda f, m, x, w: f.prelu(x, w), (F, (2, 3, 4)), (F, (3,))),
    ("glu", lambda f, m, x: f.glu(x, 1), (F, (2, 6, 3))),
    ("relu inplace", lambda f, m, x: f.relu(x * 1, inplace=True) * 2, (F, (4, 5))),
    ("silu inplace", lambda f, m, x: f.silu(x * 1, inplace=True) * 2, (F, (4, 5))),
    *[(f"softmax {d}", lambda f, m, x, d=d: f.softmax(x, d), (F, (2, 3, 4))) for d in (0, 1, -1)],
    *[(f"log_softmax {d}", lambda f, m, x, d=d: f.log_softmax(x * 5, d), (F, (2, 3, 4))) for d in (0, 1, -1)],
    ("softmax scalar", lambda f, m, x: f.softmax(x, 0), (F, ())),
    ("softmax dtype", lambda f, m, x: f.softmax(x, -1, dtype=m.float64), (F, (3, 4))),
    ("softmin", lambda f, m, x: f.softmin(x, 1), (F, (3, 4))),
    # losses
    *[(f"cross_entropy {r} {s}", lambda f, m, x, t, w, r=r, s=s: f.cross_entropy(x, t, w.detach(), reduction=r, label_smoothing=s), SCORES, (T, (6,)), (P, (5,)))
      for r in ("none", "mean", "sum") for s in (0.0, 0.3)],
    *[(f"cross_entropy ignored {r}", lambda f, m, x, t, r=r: f.cross_entropy(x, some_ignored(t, 2), reduction=r, label_smoothing=0.1), SCORES, (T, (6,)))
      for r in ("none", "mean", "sum")],
    ("cross_entropy ignore in range", lambda f, m, x, t, w: f.cross_entropy(x, t, w.detach(), ignore_index=3, label_smoothing=0.2), SCORES, (T, (6,)), (P, (5,))),
    ("cross_entropy single", lambda f, m, x, t: f.cross_entropy(x, t), (F, (5,)), (T, ())),
    ("cross_entropy dense", lambda f, m, x, t: f.cross_entropy(x, t, label_smoothing=0.1), DENSE, (T, (2, 3, 2))),
    ("cross_entropy dense none", lambda f, m, x, t, w: f.cross_entropy(x, t, w.detach(), reduction="none"), DENSE, (T, (2, 3, 2)), (P, (5,))),
    ("cross_entropy all ignored", lambda f, m, x, t: f.cross_entropy(x, t * 0 - 100, reduction="sum"), SCORES, (T, (6,))),
    ("cross_entropy empty", lambda f, m, x, t: f.cross_entropy(x, t, reduction="sum"), (F, (0, 5)), (T, (0,))),
    ("cross_entropy far", lambda f, m, x, t: f.cross_entropy(x * 1000, t), SCORES, (T, (6,))),
    ("cross_entropy legacy", lambda f, m, x, t: f.cross_entropy(x, t, size_average=False), SCORES, (T, (6,))),
    *[(f"cross_entropy soft {r}", lambda f, m, x, t, w, r=r: f.cross_entropy(x, t, w, reduction=r, label_smoothing=0.2), SCORES, (P, (6, 5)), (P, (5,)))
      for r in ("none", "mean", "sum")],
    ("cross_entropy soft dense", lambda f, m, x, t: f.cross_entropy(x, t), DENSE, (P, (2, 5, 3, 2))),
    *[(f"nll_loss {r}", lambda f, m, x, t, w, r=r: f.nll_loss(x, some_ignored(t, 1), w.detach(), reduction=r), SCORES, (T, (6,)), (P, (5,)))
      for r in ("none", "mean", "sum")],
    ("nll_loss dense", lambda f, m, x, t: f.nll_loss(x, t), DENSE, (T, (2, 3, 2))),
    *[(f"{name} {r}", lambda f, m, x, t, name=name, r=r: getattr(f, name)(x, t, reduction=r), (F, (3, 4)), (F, (3, 4)))
      for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss") for r in ("none", "mean", "sum")],
    ("mse_loss weight", lambda f, m, x, t, w: f.mse_loss(x, t, weight=w), (F, (3, 4)), (F, (3, 4)), (P, (3, 4))),
    ("smooth_l1_loss", lambda f, m, x, t: f.smooth_l1_loss(x, t, beta=0.4), (F, (3, 4)), (F, (3, 4))),
    ("huber_loss", lambda f, m, x, t: f.huber_loss(x, t, delta=0.4), (F, (3, 4)), (F, (3, 4))),
    ("l1_loss scalar", lambda f, m, x, t: f.l1_loss(x, t), (F, ()), (F, ())),
    *[(f"binary_cross_entropy {r}", lambda f, m, x, t, r=r: f.binary_cross_entropy(x, t, reduction=r), (U, (3, 4)), (U, (3, 4)))
      for r in ("none", "mean", "sum")],
    ("binary_cross_entropy weight", lambda f, m, x, t, w: f.binary_cross_entropy(x, t, w.detach()), (U, (3, 4)), (U, (3, 4)), (P, (4,))),
    *[(f"binary_cross_entropy_with_logits {r}", lambda f, m, x, t, r=r: f.binary_cross_entropy_with_logits(x, t, reduction=r), (F, (3, 4)), (U, (3, 4)))
      for r in ("none", "mean", "sum")],
    ("binary_cross_entropy_with_logits weights", lambda f, m, x, t, w, p: f.binary_cross_entropy_with_logits(x, t, w.detach(), pos_weight=p.detach()),
     (F, (3, 4)), (U, (3, 4)), (P, (4,)), (P, (4,))),
    ("binary_cross_entropy_with_logits far", lambda f, m, x, t: f.binary_cross_entropy_with_logits(x * 1000, t), (F, (3, 4)), (U, (3, 4))),
    *[(f"kl_div {r}", lambda f, m, x, t, r=r: f.kl_div(x, t, reduction=r), (F, (3, 4)), (U, (3, 4))) for r in ("none", "mean", "sum", "batchmean")],
    ("kl_div log", lambda f, m, x, t: f.kl_div(x, t, reduction="sum", log_target=True), (F, (3, 4)), (F, (3, 4))),
    ("kl_div zeros", lambda f, m, x, t: f.kl_div(x, (t.abs() - t).detach(), reduction="sum"), (F, (3, 4)), (S, (3, 4))),
    # normalisation
    ("layer_norm", lambda f, m, x, w, b: f.layer_norm(x, (5,), w, b), (F, (2, 3, 5)), (P, (5,)), (F, (5,))),
    ("layer_norm 2 dims", lambda f, m, x, w: f.layer_norm(x, (3, 5), w), (F, (2, 3, 5)), (P, (3, 5))),
    ("layer_norm plain", lambda f, m, x: f.layer_norm(x, (5,), eps=0.1), (F, (2, 3, 5))),
    ("layer_norm empty", lambda f, m, x: f.layer_norm(x, (5,)), (F, (0, 5))),
    ("rms_norm", lambda f, m, x, w: f.rms_norm(x, (5,), w), (F, (2, 3, 5)), (P, (5,))),
    ("rms_norm eps", lambda f, m, x: f.rms_norm(x, (3, 5), eps=0.1), (F, (2, 3, 5))),
    ("batch_norm", lambda f, m, x, w, b: f.batch_norm(x, None, None, w, b, True), IMAGE, (P, (4,)), (F, (4,))),
    ("batch_norm 2-D", lambda f, m, x, w, b: f.batch_norm(x, None, None, w, b, True), (F, (6, 4)), (P, (4,)), (F, (4,))),
    ("batch_norm eval", lambda f, m, x, r, v, w, b: f.batch_norm(x, r.detach(), v.detach(), w, b), IMAGE, (F, (4,)), (P, (4,)), (P, (4,)), (F, (4,))),
    ("batch_norm running", lambda f, m, x, r, v: running(f.batch_norm, x, r, v, training=True, momentum=0.3), IMAGE, (F, (4,)), (P, (4,))),
    ("group_norm", lambda f, m, x, w, b: f.group_norm(x, 2, w, b), IMAGE, (P, (4,)), (F, (4,))),
    ("instance_norm", lambda f, m, x, w, b: f.instance_norm(x, weight=w, bias=b), IMAGE, (P, (4,)), (F, (4,))),
    ("instance_norm running", lambda f, m, x, r, v: running(f.instance_norm, x, r, v, momentum=0.3), IMAGE, (F, (4,)), (P, (4,))),
    ("instance_norm eval", lambda f, m, x, r, v: f.instance_norm(x, r.detach(), v.detach(), use_input_stats=False), IMAGE, (F, (4,)), (P, (4,))),
    ("normalize", lambda f, m, x: f.normalize(x), (F, (3, 4))),
    ("normalize p", lambda f, m, x: f.normalize(x, p=3.0, dim=0), (F, (3, 4))),
    ("normalize zero", lambda f, m, x: f.normalize(x * 0 + 1e-20, dim=0), (F, (3, 4))),
    ("cosine_similarity", lambda f, m, a, b: f.cosine_similarity(a, b), (F, (3, 4)), (F, (3, 4))),
    # convolution
    *[(f"conv2d {o}", lambda f, m, x, w, b, o=o: f.conv2d(x, w, b, **o), IMAGE, (F, (6, 4 // o.get("groups", 1), 3, 2)), (F, (6,)))
      for o in ({}, {"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2}, {"padding": "same"}, {"groups": 2, "stride": (2, 1)}, {"dilation": (1, 2), "padding": "same"})],
    ("conv2d single", lambda f, m, x, w: f.conv2d(x, w), (F, (4, 7, 6)), (F, (6, 4, 3, 3))),
    ("conv2d 1x1", lambda f, m, x, w: f.conv2d(x, w, stride=2), IMAGE, (F, (6, 4, 1, 1))),
    ("conv2d depthwise", lambda f, m, x, w: f.conv2d(x, w, padding=1, groups=4), IMAGE, (F, (8, 1, 3, 3))),
    ("conv1d", lambda f, m, x, w, b: f.conv1d(x, w, b, 2, 1, 2), SEQUENCE, (F, (6, 4, 3)), (F, (6,))),
    ("conv1d same", lambda f, m, x, w: f.conv1d(x, w, padding="same"), SEQUENCE, (F, (6, 4, 4))),
    ("conv3d", lambda f, m, x, w: f.conv3d(x, w, padding=1, stride=(1, 2, 1)), VOLUME, (F, (3, 2, 3, 2, 3))),
    ("conv_transpose1d", lambda f, m, x, w: f.conv_transpose1d(x, w, stride=2, output_padding=1), SEQUENCE, (F, (4, 3, 3))),
    ("conv_transpose2d", lambda f, m, x, w, b: f.conv_transpose2d(x, w, b, 2, 1, 1), IMAGE, (F, (4, 3, 3, 3)), (F, (3,))),
    ("conv_transpose2d groups", lambda f, m, x, w: f.conv_transpose2d(x, w, groups=2, dilation=2), IMAGE, (F, (4, 3, 2, 3))),
    ("conv_transpose3d", lambda f, m, x, w: f.conv_transpose3d(x, w, stride=2), VOLUME, (F, (2, 3, 2, 3, 2))),
    # pooling
    *[(f"{name} {o}", lambda f, m, x, name=name, o=o: getattr(f, name)(x, **o), IMAGE)
      for name in ("max_pool2d", "avg_pool2d")
      for o in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": (3, 2), "stride": 2, "ceil_mode": True},
                {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True})],
    ("max_pool2d dilation", lambda f, m, x: f.max_pool2d(x, 2, stride=1, dilation=2), IMAGE),
    ("max_pool2d indices", lambda f, m, x: f.max_pool2d(x, 3, 2, 1, return_indices=True)[1], IMAGE),
    ("max_pool2d ties", lambda f, m, x: f.max_pool2d(x, 3, 2, 1), (S, (2, 2, 6, 6))),
    ("avg_pool2d without pad", lambda f, m, x: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    ("avg_pool2d without pad, ceil", lambda f, m, x: f.avg_pool2d(x, 3, 2, 1, True, False), IMAGE),
    ("avg_pool2d divisor", lambda f, m, x: f.avg_pool2d(x, 3, 2, divisor_override=5), IMAGE),
    ("max_pool1d", lambda f, m, x: f.max_pool1d(x, 3, 2, 1), SEQUENCE),
    ("avg_pool1d", lambda f, m, x: f.avg_pool1d(x, 3, 2, 1), SEQUENCE),
    ("max_pool3d", lambda f, m, x: f.max_pool3d(x, 2, 2), VOLUME),
    ("avg_pool3d", lambda f, m, x: f.avg_pool3d(x, 2, 1, 1), VOLUME),
    *[(f"adaptive_{k}_pool2d {o}", lambda f, m, x, k=k, o=o: getattr(f, f"adaptive_{k}_pool2d")(x, o), IMAGE)
      for k in ("avg", "max") for o in (1, 2, (3, None), (7, 6), 4)],
    ("adaptive_avg_pool1d", lambda f, m, x: f.adaptive_avg_pool1d(x, 4), SEQUENCE),
    ("adaptive_avg_pool3d", lambda f, m, x: f.adaptive_avg_pool3d(x, 2), VOLUME),
    # attention
    ("scaled_dot_product_attention", lambda f, m, q, k, v: f.scaled_dot_product_attention(q, k, v), *HEADS),
    ("scaled_dot_product_attention causal", lambda f, m, q, k, v: f.scaled_dot_product_attention(q, k, v, is_causal=True), *HEADS),
    ("scaled_dot_product_attention bool", lambda f, m, q, k, v, a: f.scaled_dot_product_attention(q, k, v, a), *HEADS, (B, (5, 6))),
    ("scaled_dot_product_attention float", lambda f, m, q, k, v, a: f.scaled_dot_product_attention(q, k, v, a, scale=0.2), *HEADS, (F, (4, 5, 6))),
    ("scaled_dot_product_attention dead", lambda f, m, q, k, v, a: f.scaled_dot_product_attention(q, k, v, a & (m.arange(5) != 2)[:, None]), *HEADS, (B, (5, 6))),
    ("scaled_dot_product_attention gqa", lambda f, m, q, k, v: f.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True), *HEADS),
    ("scaled_dot_product_attention 3-D", lambda f, m, q, k, v: f.scaled_dot_product_attention(q[0], k[0], v[0]), *HEADS),
    # lookups and shapes
    ("embedding", lambda f, m, i, w: f.embedding(i, w), (I, (3, 4)), (F, (7, 3))),
    ("embedding padding", lambda f, m, i, w: f.embedding(i, w, padding_idx=3), (I, (3, 4)), (F, (7, 40))),
    ("embedding frequency", lambda f, m, i, w: f.embedding(i, w, scale_grad_by_freq=True), (I, (30,)), (F, (7, 3))),
    ("embedding max_norm", lambda f, m, i, w: f.embedding(i, w.detach().clone(), max_norm=1.0), (I, (3, 4)), (F, (7, 3))),
    ("one_hot", lambda f, m, i: f.one_hot(i, 9), (I, (3, 4))),
    ("dropout off", lambda f, m, x: f.dropout(x, 0.5, training=False) * 2, (F, (3, 4))),
    ("dropout all", lambda f, m, x: f.dropout(x, 1.0), (F, (3, 4))),
    *[(f"pad {o}", lambda f, m, x, o=o: f.pad(x, **o), (F, (2, 3, 4, 5)))
      for o in ({"pad": (1, 2)}, {"pad": (1, -1, 2, 0), "value": 1.5}, {"pad": (0, 0, 0, 0, 1, 1)}, {"pad": (1, 2, 2, 1), "mode": "reflect"},
                {"pad": (3, 1, 0, 2), "mode": "replicate"}, {"pad": (3, 1, 0, 2), "mode": "circular"})],
    *[(f"interpolate {o}", lambda f, m, x, o=o: f.interpolate(x, **o), IMAGE)
      for o in ({"scale_factor": 2}, {"size": (5, 9)}, {"scale_factor": 1.7}, {"scale_factor": (0.6, 1.3), "mode": "nearest-exact"}, {"size": 3, "mode": "area"},
                {"scale_factor": 1.6, "mode": "bilinear"}, {"scale_factor": 1.6, "mode": "bilinear", "recompute_scale_factor": True},
                {"size": (4, 9), "mode": "bilinear", "align_corners": True}, {"size": (4, 9), "mode": "bicubic"}, {"size": (1, 9), "mode": "bicubic", "align_corners": True},
                {"size": (3, 11), "mode": "bilinear", "antialias": True}, {"size": (3, 11), "mode": "bicubic", "antialias": True})],
    ("interpolate linear", lambda f, m, x: f.interpolate(x, 5, mode="linear"), SEQUENCE),
    ("interpolate trilinear", lambda f, m, x: f.interpolate(x, scale_factor=1.5, mode="trilinear"), VOLUME),
    *[(f"{name} {r}", lambda f, m, a, b, t, name=name, r=r: getattr(f, name)(a, b, t.detach(), reduction=r), (F, (4, 3)), (F, (4, 3)), (S, (4, 3)))
      for name in ("margin_ranking_loss",) for r in ("none", "mean", "sum")],
    ("cosine_embedding_loss", lambda f, m, a, b, t: f.cosine_embedding_loss(a, b, t.detach(), margin=-0.3), (F, (4, 3)), (F, (4, 3)), (S, (4,))),
    ("hinge_embedding_loss", lambda f, m, a, t: f.hinge_embedding_loss(a, t.detach()), (F, (4, 3)), (S, (4, 3))),
    ("soft_margin_loss", lambda f, m, a, t: f.soft_margin_loss(a, t.detach()), (F, (4, 3)), (S, (4, 3))),
    ("triplet_margin_loss", lambda f, m, a, p, n: f.triplet_margin_loss(a, p, n, swap=True), (F, (4, 3)), (F, (4, 3)), (F, (4, 3))),
    ("triplet_margin_loss p", lambda f, m, a, p, n: f.triplet_margin_loss(a, p, n, p=3.0, margin=2.0), (F, (4, 3)), (F, (4, 3)), (F, (4, 3))),
    ("gaussian_nll_loss", lambda f, m, a, t, v: f.gaussian_nll_loss(a, t, v, full=True), (F, (4, 3)), (F, (4, 3)), (P, (4, 1))),
    ("poisson_nll_loss", lambda f, m, a, t: f.poisson_nll_loss(a, t.detach() * 3, full=True), (F, (4, 3)), (P, (4, 3))),
    ("poisson_nll_loss plain", lambda f, m, a, t: f.poisson_nll_loss(a, t, log_input=False), (P, (4, 3)), (P, (4, 3))),
    ("multilabel_soft_margin_loss", lambda f, m, a, t, w: f.multilabel_soft_margin_loss(a, t, w), (F, (4, 3)), (U, (4, 3)), (P, (3,))),
    ("pairwise_distance", lambda f, m, a, b: f.pairwise_distance(a, b, keepdim=True), (F, (4, 3)), (F, (4, 3))),
    ("unfold", lambda f, m, x: f.unfold(x, (2, 3), 1, 1, 2), IMAGE),
    ("fold", lambda f, m, x: f.fold(x, (4, 5), 2, padding=1), (F, (2, 8, 30))),
    ("pixel_shuffle", lambda f, m, x: f.pixel_shuffle(x, 2), (F, (2, 8, 3, 2))),
    ("pixel_unshuffle", lambda f, m, x: f.pixel_unshuffle(x, 2), (F, (2, 3, 4, 2))),
    ("channel_shuffle", lambda f, m, x: f.channel_shuffle(x, 2), (F, (2, 6, 3, 2))),
]  # fmt: skip


def running(norm, x, mean, var, **options):
    """The output beside the running statistics it moved."""
    mean, var = mean.detach().clone(), var.detach().clone()
    y = norm(x, mean, var, **options)
    return y * 2 + (mean + var).reshape(1, -1, 1, 1)


def run(m, function, inputs, order=2):
    """The value, the gradients and, for order 2, the gradients of a sum of squared gradients."""
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    wanted = [x for x in inputs if x.requires_grad]
    y = function(m.nn.functional, m, *inputs)
    out = [y]
    if not y.requires_grad:
        return out
    weight = m.arange(1, y.numel() + 1, dtype=y.dtype).reshape(tuple(y.shape)) / max(y.numel(), 1)
    first = m.autograd.grad((y * weight).sum(), wanted, create_graph=True, allow_unused=True)
    if order == 1:
        return out + [g.detach() for g in first]
    out += first
    total = sum((g * g).sum() for g in first if g is not None)
    if not getattr(total, "requires_grad", False):
        return out + [m.zeros_like(x) for x in wanted]
    return out + list(m.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))


def compare(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    half = max(len(ours) // 2, 1)
    names = ["value"] + ["gradient"] * half + ["second"] * half
    for what, a, b in zip(names, ours, theirs):
        assert (a is None) == (b is None), what
        if a is not None:
            assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1], what
            assert tuple(a.shape) == tuple(b.shape), what
            tol = tolerance[a.dtype] * (30 if what == "second" else 1)
            np.testing.assert_allclose(a.detach().double().numpy(), b.detach().double().numpy(force=True), tol, tol, err_msg=what)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_matches_torch(case, dtype):
    name, function, *operands = case
    order = 2
    if operands[0] is FIRST:
        order, operands = 1, operands[1:]
    arrays = [data(kind, shape, seed) for seed, (kind, shape) in enumerate(operands)]
    arrays = [a.astype(dtype) if np.asarray(a).dtype == np.float64 else np.asarray(a) for a in arrays]
    ours = run(dtrain, function, [dtrain.tensor(a) for a in arrays], order)
    theirs = run(torch, function, [torch.tensor(a) for a in arrays], order)
    double = 1e-7 if name.startswith("hardsigmoid") else 1e-9  # PyTorch computes its 1/6 in float32
    compare(ours, theirs, {dtrain.float32: 5e-5, dtrain.float64: double, dtrain.int64: 0})




@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", [
    "relu", "gelu", "silu", "softmax 1", "log_softmax 1", "cross_entropy mean 0.0", "layer_norm", "rms_norm", "batch_norm", "embedding",
    "mse_loss mean", "scaled_dot_product_attention causal", "conv2d {}", "max_pool2d {'kernel_size': 2}",
])  # fmt: skip
def test_half_precision_matches_torch(name, dtype):
    """PyTorch's dtypes; values and first gradients as near to those of float32 as the type's precision allows."""
    _, function, *operands = next(c for c in CASES if c[0] == name)
    arrays = [np.asarray(data(kind, shape, seed)) for seed, (kind, shape) in enumerate(operands)]
    ours, theirs, exact = [half_results(m, function, arrays, dtype, up) for m, up in ((dtrain, False), (torch, False), (torch, True))]
    for a, b, c in zip(ours, theirs, exact):
        assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1] == dtype
        a, c = a.detach().float().numpy(), c.detach().numpy()
        assert np.abs(a - c).max() <= (0.02 if dtype == "bfloat16" else 0.003) * max(1, np.abs(c).max())


def half_results(m, function, arrays, dtype, up):
    """The value and the gradients in ``dtype``, or of the rounded inputs in float32."""
    tensors = [m.tensor(a).to(getattr(m, dtype)) if a.dtype == np.float64 else m.tensor(a) for a in arrays]
    tensors = [(t.float() if up else t).requires_grad_() if t.is_floating_point() else t for t in tensors]
    y = function(m.nn.functional, m, *tensors)
    wanted = [t for t in tensors if t.requires_grad]
    ramp = (m.arange(y.numel()).to(y.dtype) / max(y.numel(), 1)).reshape(tuple(y.shape))
    return [y, *[g for g in m.autograd.grad((y * ramp).sum(), wanted, allow_unused=True) if g is not None]]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (1, 1), (2, 0, 3)])
@pytest.mark.parametrize("name", "relu gelu silu softplus elu hardswish leaky_relu softshrink".split())
def test_edge_sizes(name, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    ours, theirs = (run(m, lambda f, m, x: getattr(f, name)(x), [m.tensor(x)]) for m in (dtrain, torch))
    compare(ours, theirs, {dtrain.float64: 1e-10})


ERRORS = [
    ("cross_entropy range", lambda f, m: f.cross_entropy(m.zeros(2, 3), m.tensor([0, 3]))),
    ("cross_entropy negative", lambda f, m: f.cross_entropy(m.zeros(2, 3), m.tensor([0, -1]))),
    ("cross_entropy shape", lambda f, m: f.cross_entropy(m.zeros(2, 3), m.tensor([0, 1, 2]))),
    ("cross_entropy smoothing", lambda f, m: f.cross_entropy(m.zeros(2, 3), m.tensor([0, 1]), label_smoothing=1.5)),
    ("nll_loss weight", lambda f, m: f.nll_loss(m.zeros(2, 3), m.tensor([0, 1]), m.ones(2))),
    ("reduction", lambda f, m: f.mse_loss(m.zeros(2), m.zeros(2), reduction="avg")),
    ("binary_cross_entropy range", lambda f, m: f.binary_cross_entropy(m.zeros(2) - 1, m.zeros(2))),
    ("binary_cross_entropy size", lambda f, m: f.binary_cross_entropy(m.zeros(2, 1), m.zeros(2))),
    ("huber delta", lambda f, m: f.huber_loss(m.zeros(2), m.zeros(2), delta=-1)),
    ("layer_norm shape", lambda f, m: f.layer_norm(m.zeros(2, 3), (2,))),
    ("group_norm groups", lambda f, m: f.group_norm(m.zeros(2, 3, 4), 2)),
    ("batch_norm one value", lambda f, m: f.batch_norm(m.zeros(1, 3), None, None, training=True)),
    ("conv2d channels", lambda f, m: f.conv2d(m.zeros(1, 3, 5, 5), m.zeros(2, 4, 3, 3))),
    ("conv2d kernel", lambda f, m: f.conv2d(m.zeros(1, 3, 2, 2), m.zeros(2, 3, 3, 3))),
    ("conv2d dtype", lambda f, m: f.conv2d(m.zeros(1, 3, 5, 5), m.zeros(2, 3, 3, 3, dtype=m.float64))),
    ("conv2d same stride", lambda f, m: f.conv2d(m.zeros(1, 3, 5, 5), m.zeros(2, 3, 3, 3), padding="same", stride=2)),
    ("max_pool2d padding", lambda f, m: f.max_pool2d(m.zeros(1, 3, 5, 5), 2, padding=2)),
    ("embedding range", lambda f, m: f.embedding(m.tensor([3]), m.zeros(3, 2))),
    ("embedding floats", lambda f, m: f.embedding(m.tensor([0.0]), m.zeros(3, 2))),
    ("dropout p", lambda f, m: f.dropout(m.zeros(3), 2.0)),
    ("gelu form", lambda f, m: f.gelu(m.zeros(3), approximate="exact")),
    ("glu odd", lambda f, m: f.glu(m.zeros(3))),
    ("pad reflect", lambda f, m: f.pad(m.zeros(1, 2, 3), (3, 0), "reflect")),
    ("one_hot range", lambda f, m: f.one_hot(m.tensor([3]), 3)),
    ("attention both", lambda f, m: f.scaled_dot_product_attention(*[m.zeros(2, 3, 4)] * 3, m.zeros(3, 3), is_causal=True)),
]  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=[c[0] for c in ERRORS])
def test_errors_where_torch_has_them(case):
    for m in (torch, dtrain):
        with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)):
            case[1](m.nn.functional, m)
