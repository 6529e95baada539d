"""Resizing: gradients to second order, what each mode keeps, errors."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops.interpolate import interpolate
from tests.ops.util import check_grad, normal, to_numpy

SHAPES = {1: (2, 2, 5), 2: (2, 2, 4, 5), 3: (1, 2, 3, 4, 3)}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize("scale", [2, 0.6, 1.7])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "linear"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients(dims, mode, scale, device):
    mode = LINEAR[dims] if mode == "linear" else mode
    check_grad(lambda x: interpolate(x, scale_factor=scale, mode=mode), normal(*SHAPES[dims]), device=device)


@pytest.mark.parametrize("options", [{"align_corners": True}, {"antialias": True}, {}])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_gradients_of_image_filters(mode, options, device):
    check_grad(lambda x: interpolate(x, (3, 7), mode=mode, **options), normal(2, 2, 4, 5), device=device)


def test_nearest_repeats_and_linear_meets_corners(device):
    x = dtrain.tensor([[[1.0, 2.0, 4.0]]], device=device)
    assert interpolate(x, scale_factor=2).tolist() == [[[1, 1, 2, 2, 4, 4]]]
    assert interpolate(x, 5, mode="linear", align_corners=True).tolist() == [[[1, 1.5, 2, 3, 4]]]
    np.testing.assert_allclose(to_numpy(interpolate(x, 6, mode="linear")), [[[1, 1.25, 1.75, 2.5, 3.5, 4]]])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_filters_keep_a_constant(mode, antialias):
    y = interpolate(dtrain.ones(1, 1, 9, 7), (4, 11), mode=mode, antialias=antialias)
    np.testing.assert_allclose(to_numpy(y), 1, rtol=1e-6)


def test_errors_say_what_to_do():
    x = dtrain.zeros(1, 1, 4, 4)
    with pytest.raises(ArgumentError, match="either size or scale_factor"):
        interpolate(x)
    with pytest.raises(ArgumentError, match="'bicubic'"):
        interpolate(x, 2, mode="cubic")
    with pytest.raises(ShapeError, match="3 dims"):
        interpolate(x, 2, mode="linear")
    with pytest.raises(ArgumentError, match="align_corners belongs"):
        interpolate(x, 2, align_corners=True)
    with pytest.raises(ArgumentError, match="antialias belongs"):
        interpolate(x, 2, antialias=True)
    with pytest.raises(ShapeError, match="at least 1"):
        interpolate(x, scale_factor=0.1)
    with pytest.raises(ArgumentError, match="one number or 2"):
        interpolate(x, scale_factor=(2.0,) * 3)
