"""Attention: gradients to second order with every kind of mask, against the formula in full, in pieces."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops import attention
from dtrain.ops.attention import scaled_dot_product_attention as attend
from tests.ops.util import check_grad, normal, to_numpy

Q, K, V = normal(2, 4, 5, 3), normal(2, 4, 6, 3, seed=1), normal(2, 4, 6, 2, seed=2)
MASK = normal(5, 6, seed=3) > -0.5
DEAD = np.array([[True] * 6] * 2 + [[False] * 6] + [[True] * 6] * 2)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
@pytest.mark.parametrize("q, k, v", [
    (Q, K, V),
    (Q, normal(2, 4, 3, 3), normal(2, 4, 3, 3)),
    (normal(5, 3), normal(6, 3), normal(6, 2)),
    (normal(4, 5, 3), normal(4, 6, 3), normal(4, 6, 2)),
    (normal(2, 1, 2, 5, 3), normal(3, 1, 6, 3), normal(6, 2)),
    (Q, K[:, :, :0].copy(), V[:, :, :0].copy()),
])  # fmt: skip
def test_gradients(q, k, v, options, device):
    check_grad(lambda q, k, v: attend(q, k, v, **options), q, k, v, device=device)


@pytest.mark.parametrize("mask", [
    MASK, DEAD, normal(5, 6), normal(4, 1, 6), normal(2, 1, 5, 6), normal(2, 4, 5, 1), normal(6), np.where(DEAD, 0.5, -np.inf).astype(np.float32),
])  # fmt: skip
def test_gradients_with_masks(mask, device):
    check_grad(lambda q, k, v, m: attend(q, k, v, m), Q, K, V, mask, device=device)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}])
def test_gradients_of_grouped_queries(options, device):
    check_grad(lambda q, k, v: attend(q, k, v, enable_gqa=True, **options), Q, K[:, :2].copy(), V[:, :2].copy(), device=device)
    check_grad(lambda q, k, v, m: attend(q, k, v, m, enable_gqa=True), Q, K[:, :2].copy(), V[:, :2].copy(), normal(4, 5, 6), device=device)


def _in_full(q, k, v, allowed):
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    s = np.where(allowed, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("weights", [1, 30, 200, 1 << 17])
@pytest.mark.parametrize("causal", [False, True])
def test_pieces_change_nothing(weights, causal, monkeypatch):
    monkeypatch.setattr(attention, "_WEIGHTS", weights)
    q, k, v = [dtrain.tensor(a).requires_grad_() for a in (normal(2, 4, 7, 3), normal(2, 4, 7, 3, seed=1), normal(2, 4, 7, 2, seed=2))]
    y = attend(q, k, v, is_causal=causal)
    np.testing.assert_allclose(to_numpy(y.detach()), _in_full(*[to_numpy(t.detach()) for t in (q, k, v)], np.tril(np.ones((7, 7))) >= causal), atol=1e-12)
    grads = dtrain.autograd.grad((y * y).sum(), (q, k, v))
    monkeypatch.setattr(attention, "_WEIGHTS", 1 << 20)
    y = attend(q, k, v, is_causal=causal)
    for a, b in zip(grads, dtrain.autograd.grad((y * y).sum(), (q, k, v))):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-12)


def test_a_row_without_keys_gives_zero():
    y = attend(dtrain.tensor(Q), dtrain.tensor(K), dtrain.tensor(V), dtrain.tensor(DEAD))
    assert not to_numpy(y)[:, :, 2].any() and np.isfinite(to_numpy(y)).all()


def test_heads_join_without_a_copy():
    packed = dtrain.tensor(normal(2, 5, 3, 4, 8))
    q, k, v = [packed[:, :, i].transpose(1, 2) for i in range(3)]
    assert attend(q, k, v).transpose(1, 2).is_contiguous()


def test_dropout_drops_weights_and_its_gradient_knows_which(device):
    def fn(q, k, v):
        dtrain.manual_seed(3)
        return attend(q, k, v, dropout_p=0.4)

    check_grad(fn, Q, K, V, device=device)
    ones = dtrain.ones(1, 1, 50, 400, device=device)
    dtrain.manual_seed(0)
    kept = to_numpy(attend(dtrain.zeros(1, 1, 50, 4, device=device), dtrain.zeros(1, 1, 400, 4, device=device), ones.mT, dropout_p=0.4))
    assert abs(kept.mean() - 1) < 0.05 and kept.std() > 0.01


def test_errors_say_what_to_do():
    q = dtrain.zeros(2, 4, 5, 3)
    with pytest.raises(ArgumentError, match="not both"):
        attend(q, q, q, dtrain.zeros(5, 5), is_causal=True)
    with pytest.raises(ShapeError, match="one width"):
        attend(q, dtrain.zeros(2, 4, 5, 2), q)
    with pytest.raises(ShapeError, match="enable_gqa"):
        attend(q, q[:, :2], q[:, :2])
    with pytest.raises(ShapeError, match=r"\(2, 4, 5, 5\)"):
        attend(q, q, q, dtrain.zeros(3, 5))
    with pytest.raises(DtypeError, match="bool"):
        attend(q, q, q, dtrain.zeros(5, 5, dtype=dtrain.int64))
    with pytest.raises(DtypeError, match="one dtype"):
        attend(q, q, q.double())


def test_meta_tensors_give_shapes():
    q = dtrain.empty(2, 4, 5, 3, device="meta").requires_grad_()
    assert attend(q, q, q, is_causal=True).shape == (2, 4, 5, 3)
