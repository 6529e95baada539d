"""Pooling: gradients to second order in every geometry, ties, indices, errors."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError, UnsupportedError
from dtrain.ops import pooling
from tests.ops.util import check_grad, normal, to_numpy

GEOMETRIES = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1},
]
SHAPES = {1: (2, 2, 8), 2: (2, 2, 6, 7), 3: (1, 2, 4, 5, 4)}


@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_max_pool(dims, options, device):
    check_grad(lambda x: getattr(pooling, f"max_pool{dims}d")(x, **options), normal(*SHAPES[dims]), device=device)


@pytest.mark.parametrize("more", [{}, {"count_include_pad": False}, {"divisor_override": 5}])
@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_avg_pool(dims, options, more, device):
    if dims > 1 or "divisor_override" not in more:
        check_grad(lambda x: getattr(pooling, f"avg_pool{dims}d")(x, **options, **more), normal(*SHAPES[dims]), device=device)


@pytest.mark.parametrize("out", [1, 2, 3, 5])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_adaptive_pools(dims, out, device):
    for kind in ("avg", "max"):
        check_grad(lambda x: getattr(pooling, f"adaptive_{kind}_pool{dims}d")(x, out), normal(2, 2, *[6] * dims), device=device)


def test_dilation_and_no_batch(device):
    check_grad(lambda x: pooling.max_pool2d(x, (2, 3), stride=(1, 2), dilation=(2, 1)), normal(3, 6, 7), device=device)
    check_grad(lambda x: pooling.adaptive_avg_pool2d(x, (None, 2)), normal(3, 4, 6), device=device)


def test_ties_give_the_gradient_to_the_first():
    x = dtrain.tensor([[[1.0, 1.0, 0.0, 2.0, 2.0, 2.0]]]).requires_grad_()
    pooling.max_pool1d(x, 3).sum().backward()
    assert x.grad.tolist() == [[[1, 0, 0, 1, 0, 0]]]


def test_indices_are_where_the_maxima_are(device):
    x = normal(2, 3, 7, 6)
    y, at = pooling.max_pool2d(dtrain.tensor(x, device=device), 3, 2, 1, return_indices=True)
    assert at.dtype is dtrain.int64 and at.shape == y.shape
    planes = x.reshape(2, 3, -1)
    np.testing.assert_array_equal(np.take_along_axis(planes, to_numpy(at).reshape(2, 3, -1), 2), to_numpy(y).reshape(2, 3, -1))


def test_nan_wins():
    x = dtrain.tensor([[[1.0, float("nan"), 3.0, 4.0]]])
    y, at = pooling.max_pool1d(x, 2, return_indices=True)
    assert np.isnan(y.tolist()[0][0][0]) and y.tolist()[0][0][1] == 4 and at.tolist() == [[[1, 3]]]


def test_large_inputs_go_through_in_pieces():
    x = normal(40, 4, 32, 32, dtype=np.float32)
    y = pooling.max_pool2d(dtrain.tensor(x), 2)
    np.testing.assert_array_equal(to_numpy(y), x.reshape(40, 4, 16, 2, 16, 2).max((3, 5)))
    y = pooling.avg_pool2d(dtrain.tensor(x), 2)
    np.testing.assert_allclose(to_numpy(y), x.reshape(40, 4, 16, 2, 16, 2).mean((3, 5)), atol=1e-6)


def test_errors_say_what_to_do():
    x = dtrain.zeros(1, 1, 4, 4)
    with pytest.raises(ArgumentError, match="half the kernel"):
        pooling.max_pool2d(x, 2, padding=2)
    with pytest.raises(ShapeError, match="smaller kernel"):
        pooling.avg_pool2d(x, 5)
    with pytest.raises(ShapeError, match="2 dims"):
        pooling.max_pool2d(dtrain.zeros(4, 4), 2)
    with pytest.raises(ArgumentError, match="divisor_override"):
        pooling.avg_pool2d(x, 2, divisor_override=0)
    with pytest.raises(UnsupportedError, match="divides"):
        pooling.adaptive_max_pool2d(x, 3, return_indices=True)


def test_meta_tensors_give_shapes():
    x = dtrain.empty(2, 3, 9, 9, device="meta").requires_grad_()
    y = pooling.max_pool2d(x, 3, 2, 1)
    (y.sum() + pooling.avg_pool2d(x, 2).sum()).backward()
    assert y.shape == (2, 3, 5, 5) and x.grad.shape == x.shape and pooling.adaptive_avg_pool2d(x, 4).shape == (2, 3, 4, 4)
