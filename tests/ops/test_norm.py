"""Normalisation: gradients to second order, running statistics, errors."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops import normalization as norm
from tests.ops.util import check_grad, normal, positive, to_numpy

X3, W3, B3 = normal(4, 3, 5), positive(3), normal(3, seed=2)


@pytest.mark.parametrize("fn, operands", [
    (lambda x, w, b: norm.layer_norm(x, 5, w, b), [normal(4, 3, 5), positive(5), normal(5)]),
    (lambda x, w, b: norm.layer_norm(x, (3, 5), w, b), [normal(4, 3, 5), positive(3, 5), normal(3, 5)]),
    (lambda x, b: norm.layer_norm(x, (5,), None, b), [normal(2, 5), normal(5)]),
    (lambda x: norm.layer_norm(x, (5,), eps=0.1), [normal(5)]),
    (lambda x, w: norm.rms_norm(x, (5,), w), [normal(4, 3, 5), positive(5)]),
    (lambda x: norm.rms_norm(x, 5, eps=0.1), [normal(4, 5)]),
    (lambda x, w, b: norm.group_norm(x, 2, w, b), [normal(2, 6, 4), positive(6), normal(6)]),
    (lambda x: norm.group_norm(x, 3), [normal(3, 6)]),
    (lambda x, w, b: norm.batch_norm(x, None, None, w, b, True), [X3, W3, B3]),
    (lambda x, w, b: norm.batch_norm(x, None, None, w, b, True), [normal(4, 3), W3, B3]),
    (lambda x: norm.batch_norm(x, None, None, training=True, eps=0.1), [normal(4, 3, 2, 2)]),
    (lambda x, w, b, m, v: norm.batch_norm(x, m, v, w, b), [X3, W3, B3, B3.astype(np.float32), W3.astype(np.float32)]),
    (lambda x, w, b: norm.instance_norm(x, None, None, w, b), [X3, W3, B3]),
    (lambda x: norm.normalize(x, dim=1), [X3]),
    (lambda x: norm.normalize(x, p=3.0, dim=-1), [X3]),
    (lambda a, b: norm.cosine_similarity(a, b), [normal(4, 3), normal(4, 3, seed=1)]),
])  # fmt: skip
def test_gradients(fn, operands, device):
    check_grad(fn, *operands, device=device)


def test_rows_in_pieces_change_nothing():
    x, w, b = normal(900, 200, dtype=np.float32), positive(200).astype(np.float32), normal(200, dtype=np.float32)
    tensors = [dtrain.tensor(a).requires_grad_() for a in (x, w, b)]
    g = normal(900, 200, seed=5, dtype=np.float32)
    y = norm.layer_norm(tensors[0], 200, *tensors[1:])
    y.backward(dtrain.tensor(g))
    unit = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(to_numpy(y.detach()), unit * w + b, atol=1e-5)
    np.testing.assert_allclose(to_numpy(tensors[1].grad), (g * unit).sum(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(to_numpy(tensors[2].grad), g.sum(0), rtol=1e-3, atol=1e-4)
    h = g * w
    gx = (h - h.mean(1, keepdims=True) - unit * (h * unit).mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(to_numpy(tensors[0].grad), gx, atol=1e-5)


def test_batch_norm_moves_the_running_statistics_in_place(device):
    x = normal(6, 3, 4, dtype=np.float32)
    mean, var = dtrain.zeros(3, device=device), dtrain.ones(3, device=device)
    memory = mean._array
    norm.batch_norm(dtrain.tensor(x, device=device), mean, var, training=True, momentum=0.25)
    assert mean._array is memory and mean._version == 1
    np.testing.assert_allclose(to_numpy(mean), 0.25 * x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(var), 0.75 + 0.25 * x.transpose(1, 0, 2).reshape(3, -1).var(1, ddof=1), rtol=1e-5)


def test_instance_norm_averages_the_statistics_of_the_items():
    x = normal(2, 3, 8, dtype=np.float32)
    mean, var = dtrain.zeros(3), dtrain.ones(3)
    norm.instance_norm(dtrain.tensor(x), mean, var, momentum=1.0)
    np.testing.assert_allclose(to_numpy(mean), x.mean(2).mean(0), atol=1e-6)
    np.testing.assert_allclose(to_numpy(var), x.var(2, ddof=1).mean(0), rtol=1e-4)


def test_half_precision_is_computed_in_float32():
    x = dtrain.tensor(normal(4, 300) * 100 + 1000).to(dtrain.float16)
    y = norm.layer_norm(x, 300)
    assert y.dtype is dtrain.float16 and abs(to_numpy(y.float()).std() - 1) < 0.01


def test_errors_say_what_to_do():
    x = dtrain.zeros(2, 3, 4)
    with pytest.raises(ShapeError, match=r"\(\.\.\., 3\), got \(2, 3, 4\)"):
        norm.layer_norm(x, 3)
    with pytest.raises(ShapeError, match="normalized shape"):
        norm.layer_norm(x, 4, dtrain.ones(3))
    with pytest.raises(ShapeError, match="2 groups"):
        norm.group_norm(x, 2)
    with pytest.raises(ShapeError, match=r"shape \(3,\), got \(4,\)"):
        norm.batch_norm(x, dtrain.zeros(4), dtrain.ones(4))
    with pytest.raises(ArgumentError, match="training=True"):
        norm.batch_norm(x, None, None)
    with pytest.raises(ArgumentError, match="more than one value"):
        norm.batch_norm(dtrain.zeros(1, 3), None, None, training=True)


def test_meta_tensors_give_shapes():
    x = dtrain.empty(4, 6, 5, device="meta").requires_grad_()
    w = dtrain.empty(5, device="meta").requires_grad_()
    norm.layer_norm(x, 5, w, w).sum().backward()
    assert x.grad.shape == (4, 6, 5) and w.grad.shape == (5,)
    assert norm.batch_norm(x, None, None, training=True).shape == norm.group_norm(x, 3).shape == (4, 6, 5)
