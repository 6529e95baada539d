"""Embedding, one-hot, dropout."""

import numpy as np
import pytest

import dtrain
from dtrain.backend import scatter
from dtrain.backend.namespace import numpy as xp
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError, UnsupportedError
from dtrain.ops.dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from dtrain.ops.embedding import embedding, one_hot
from dtrain.ops.gumbel import gumbel_softmax
from dtrain.ops.pad import pad
from tests.ops.util import check_grad, integers, normal, to_numpy

INDEX = np.array([[1, 4, 1], [0, 1, 4]])


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"padding_idx": -1, "scale_grad_by_freq": True}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("index", [INDEX, INDEX.astype(np.int32), np.array(2), np.zeros((0,), np.int64)])
@pytest.mark.parametrize("width", [3, 40])
def test_embedding_gradients(index, options, width, device):
    if options:  # the gradient is not that of the values any more: compare its second order only with itself
        weight = dtrain.tensor(normal(5, width), device=device).requires_grad_()
        y = embedding(dtrain.tensor(index, device=device), weight, **options)
        seed = dtrain.tensor(normal(*y.shape), device=device).requires_grad_()
        (g,) = dtrain.autograd.grad(y, weight, seed, create_graph=True)
        times = np.bincount(index.reshape(-1), minlength=5) if "scale_grad_by_freq" in options else np.ones(5)
        share = np.where(index == options.get("padding_idx", -7) % 5, 0, 1 / times[index]) if "padding_idx" in options else 1 / times[index]
        expected = np.zeros((5, width))
        np.add.at(expected, index.reshape(-1), (to_numpy(seed.detach()) * share[..., None]).reshape(-1, width))
        np.testing.assert_allclose(to_numpy(g.detach()), expected, atol=1e-6)
        (back,) = dtrain.autograd.grad(g, seed, dtrain.ones_like(g))
        np.testing.assert_allclose(to_numpy(back), np.broadcast_to(share[..., None], y.shape), atol=1e-6)
        return
    check_grad(lambda i, w: embedding(i, w), index, normal(5, width), device=device)


@pytest.mark.parametrize("count, n, width", [(5, 100, 40), (1000, 50, 33), (3, 1, 64), (7, 0, 40), (1, 77, 32)])
def test_rows_are_added_as_one_by_one(count, n, width):
    index, rows = integers(count, n), normal(n, width)
    expected = np.zeros((count, width))
    np.add.at(expected, index, rows)
    np.testing.assert_allclose(scatter.sum_rows(xp, count, index, rows), expected, atol=1e-12)


def test_half_precision_gradients_are_added_in_float32():
    weight = dtrain.zeros(2, 4, dtype=dtrain.bfloat16).requires_grad_()
    embedding(dtrain.zeros(1000, dtype=dtrain.int64), weight).sum().backward()
    assert weight.grad.dtype is dtrain.bfloat16 and weight.grad.float().tolist()[0] == [1000.0] * 4


def test_max_norm_shortens_the_rows_used():
    weight = dtrain.tensor([[3.0, 4.0], [3.0, 4.0], [0.3, 0.4]])
    y = embedding(dtrain.tensor([0, 2]), weight, max_norm=1.0)
    np.testing.assert_allclose(to_numpy(y), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-5)
    assert weight[1].tolist() == [3.0, 4.0] and weight._version == 1


@pytest.mark.parametrize("bad", [-1, 5])
def test_an_index_out_of_range_is_named(bad, device):
    with pytest.raises(IndexRangeError, match=rf"is {bad} at position \(1,\).*0 to 4"):
        embedding(dtrain.tensor([0, bad], device=device), dtrain.zeros(5, 3, device=device))


def test_one_hot(device):
    got = one_hot(dtrain.tensor(INDEX, device=device))
    assert got.dtype is dtrain.int64
    np.testing.assert_array_equal(to_numpy(got), np.eye(5, dtype=int)[INDEX])
    assert one_hot(dtrain.tensor(INDEX, device=device), 7).shape == (2, 3, 7)
    with pytest.raises(IndexRangeError, match="0 to 3"):
        one_hot(dtrain.tensor(INDEX, device=device), 4)


@pytest.mark.parametrize("fn", [dropout, dropout1d, dropout2d, alpha_dropout, feature_alpha_dropout])
def test_dropout_gradients(fn, device):
    def seeded(x):
        dtrain.manual_seed(1)
        return fn(x, 0.4, True)

    check_grad(seeded, normal(2, 3, 4), device=device)


def test_dropout_keeps_the_mean_and_repeats_with_the_seed(device):
    x = dtrain.ones(300, 300, device=device)
    dtrain.manual_seed(5)
    first, second = to_numpy(dropout(x, 0.25)), to_numpy(dropout(x, 0.25))
    dtrain.manual_seed(5)
    again = to_numpy(dropout(x, 0.25))
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    assert abs((first == 0).mean() - 0.25) < 0.01 and np.allclose(first[first != 0], 4 / 3)


def test_masks_are_the_same_on_both_devices():
    masks = []
    for where in ("cpu", "cuda:0"):
        dtrain.manual_seed(2)
        masks.append(to_numpy(dropout(dtrain.ones(1000, device=where), 0.3)))
    assert np.array_equal(*masks)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax(hard, device):
    def seeded(x):
        dtrain.manual_seed(4)
        return gumbel_softmax(x, 0.7, hard, dim=1)

    x = np.log(np.tile([[0.2], [0.5], [0.3]], (2, 1, 2000)))
    y = to_numpy(seeded(dtrain.tensor(x, device=device)))
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    assert abs((y.argmax(1) == 1).mean() - 0.5) < 0.03 and (not hard or set(np.unique(y.round(6))) == {0.0, 1.0})
    if not hard:
        check_grad(seeded, normal(2, 3, 4), device=device)


def test_dropout_of_channels_and_edges():
    x = dtrain.ones(5, 6, 4, 4)
    y = to_numpy(dropout2d(x, 0.5)).reshape(30, -1)
    assert (y.min(1) == y.max(1)).all() and 0 < y.mean() < 2
    assert to_numpy(dropout3d(dtrain.ones(3, 2, 2, 2), 0.5)).reshape(3, -1).std(1).max() == 0
    assert dropout(x, 0.5, training=False) is x and not to_numpy(dropout(x, 1.0)).any()
    z = x * 1
    assert dropout(z, 0.5, inplace=True) is z and z._version == 1
    assert dropout(dtrain.zeros(0)).shape == (0,) and dropout(dtrain.ones(())).shape == ()


def test_alpha_dropout_keeps_mean_and_variance():
    dtrain.manual_seed(0)
    y = to_numpy(alpha_dropout(dtrain.tensor(normal(200_000, dtype=np.float32)), 0.3, True))
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02


def test_errors_say_what_to_do():
    with pytest.raises(DtypeError, match=r"\.long\(\)"):
        embedding(dtrain.zeros(2), dtrain.zeros(5, 3))
    with pytest.raises(UnsupportedError, match="dense"):
        embedding(dtrain.tensor([1]), dtrain.zeros(5, 3), sparse=True)
    with pytest.raises(ShapeError, match="count, width"):
        embedding(dtrain.tensor([1]), dtrain.zeros(5))
    with pytest.raises(ArgumentError, match="0 to 1"):
        dropout(dtrain.zeros(2), 1.5)


def test_meta_tensors_give_shapes():
    w = dtrain.empty(5, 3, device="meta").requires_grad_()
    y = dropout(embedding(dtrain.empty(2, 2, dtype=dtrain.int64, device="meta"), w, padding_idx=0), 0.5)
    y.sum().backward()
    assert y.shape == (2, 2, 3) and w.grad.shape == (5, 3) and pad(y, (1, 1)).shape == (2, 2, 5)
