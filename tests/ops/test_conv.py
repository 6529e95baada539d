"""Convolution: gradients to second order in every geometry, against a loop over windows, errors."""

from itertools import product

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops import conv
from tests.ops.util import check_grad, normal, to_numpy

GEOMETRIES = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": "same"},
    {"padding": "valid", "stride": 3},
    {"groups": 2, "padding": 1, "stride": 2, "dilation": 2},
]


@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize("fn, x, w", [
    (conv.conv1d, (2, 4, 8), (6, 4, 3)),
    (conv.conv2d, (2, 4, 5, 6), (2, 4, 3, 2)),
    (conv.conv3d, (1, 2, 5, 5, 5), (2, 2, 2, 1, 3)),
])  # fmt: skip
def test_gradients(fn, x, w, options, device):
    w = (w[0], w[1] // options.get("groups", 1), *w[2:])
    check_grad(lambda x, w, b: fn(x, w, b, **options), normal(*x), normal(*w), normal(w[0]), device=device)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2, "groups": 2, "padding": 1}])
@pytest.mark.parametrize("fn, x, w", [
    (conv.conv_transpose1d, (2, 4, 5), (4, 4, 3)),
    (conv.conv_transpose2d, (2, 4, 3, 4), (4, 2, 3, 2)),
    (conv.conv_transpose3d, (1, 2, 3, 2, 3), (2, 2, 2, 3, 3)),
])  # fmt: skip
def test_gradients_of_the_transpose(fn, x, w, options, device):
    bias = normal(w[1] * options.get("groups", 1))
    check_grad(lambda x, w, b: fn(x, w, b, **options), normal(*x), normal(*w), bias, device=device)


@pytest.mark.parametrize("x, w", [((2, 3, 4), (5, 3, 1)), ((0, 3, 4), (5, 3, 3)), ((3, 4), (5, 3, 2))])
def test_pointwise_empty_and_single(x, w, device):
    check_grad(lambda x, w: conv.conv1d(x, w), normal(*x), normal(*w), device=device)


def _by_loop(x, w, stride, padding, dilation):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = w.shape[2:]
    oh, ow = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[2:], (kh, kw))]
    y = np.zeros((x.shape[0], w.shape[0], oh, ow))
    for i, j in product(range(oh), range(ow)):
        window = x[:, :, i * stride : i * stride + dilation * kh : dilation, j * stride : j * stride + dilation * kw : dilation]
        y[:, :, i, j] = np.einsum("nchw,ochw->no", window[:, :, :kh, :kw], w)
    return y


@pytest.mark.parametrize("stride, padding, dilation", [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 2)])
def test_values_against_a_loop(stride, padding, dilation):
    x, w = normal(3, 2, 9, 8), normal(4, 2, 3, 2)
    y = conv.conv2d(dtrain.tensor(x), dtrain.tensor(w), None, stride, padding, dilation)
    np.testing.assert_allclose(to_numpy(y), _by_loop(x, w, stride, padding, dilation), atol=1e-12)


def test_pieces_of_the_batch_change_nothing(monkeypatch):
    x, w = dtrain.tensor(normal(7, 2, 6, 5)).requires_grad_(), dtrain.tensor(normal(3, 2, 3, 3)).requires_grad_()
    results = []
    for limit, width in ((1 << 18, 256), (1, 1), (3 * 2 * 9 * 12, 1)):
        monkeypatch.setattr(conv, "_COLUMNS", limit)
        monkeypatch.setattr(conv, "_LEAST_WIDTH", width)
        y = conv.conv2d(x, w)
        results.append([to_numpy(a) for a in (y.detach(), *dtrain.autograd.grad((y * y).sum(), (x, w)))])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_errors_say_what_to_do():
    x = dtrain.zeros(2, 3, 5, 5)
    with pytest.raises(ShapeError, match="3 channels .* the weight takes 4 channels"):
        conv.conv2d(x, dtrain.zeros(2, 4, 3, 3))
    with pytest.raises(ShapeError, match="4 dims"):
        conv.conv2d(x, dtrain.zeros(2, 3, 3))
    with pytest.raises(ShapeError, match="smaller kernel"):
        conv.conv2d(x, dtrain.zeros(2, 3, 7, 7))
    with pytest.raises(ArgumentError, match="stride 1"):
        conv.conv2d(x, dtrain.zeros(2, 3, 3, 3), stride=2, padding="same")
    with pytest.raises(ArgumentError, match="expected one number or 2"):
        conv.conv2d(x, dtrain.zeros(2, 3, 3, 3), stride=(1, 1, 1))
    with pytest.raises(DtypeError, match="one dtype"):
        conv.conv2d(x, dtrain.zeros(2, 3, 3, 3, dtype=dtrain.float64))
    with pytest.raises(ShapeError, match=r"bias needs shape \(2,\)"):
        conv.conv2d(x, dtrain.zeros(2, 3, 3, 3), dtrain.zeros(3))
    with pytest.raises(ArgumentError, match="output_padding"):
        conv.conv_transpose2d(x, dtrain.zeros(3, 2, 3, 3), output_padding=1)


def test_meta_tensors_give_shapes():
    x, w = dtrain.empty(2, 3, 9, 9, device="meta").requires_grad_(), dtrain.empty(4, 3, 3, 3, device="meta").requires_grad_()
    y = conv.conv2d(x, w, stride=2, padding=1)
    y.sum().backward()
    assert y.shape == (2, 4, 5, 5) and x.grad.shape == x.shape and w.grad.shape == w.shape


def test_autocast_brings_the_operands_to_one_dtype():
    x, w = dtrain.tensor(normal(1, 2, 5, 5)).bfloat16(), dtrain.tensor(normal(2, 2, 3, 3)).float()
    with dtrain.autocast("cpu", dtype=dtrain.bfloat16):
        y = conv.conv2d(x, w)
        assert y.dtype is conv.conv_transpose2d(y, w).dtype is dtrain.bfloat16
        assert dtrain.nn.functional.linear(y, dtrain.ones(4, 3)).dtype is dtrain.bfloat16
