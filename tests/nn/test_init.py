"""Initial values: distributions, shapes, refusals. Their numbers are compared with PyTorch's in tests/parity."""

import warnings

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError
from dtrain.nn import init
from tests.util import check_close, to_numpy


@pytest.mark.parametrize(
    "fill, std, bound",
    [
        (lambda t: init.uniform_(t, -2, 1), 3 / 12**0.5, 2),
        (lambda t: init.normal_(t, 0, 0.5), 0.5, None),
        (lambda t: init.xavier_uniform_(t), (2 / 500) ** 0.5, (6 / 500) ** 0.5),
        (lambda t: init.xavier_normal_(t, 2.0), 2 * (2 / 500) ** 0.5, None),
        (lambda t: init.kaiming_uniform_(t, a=5**0.5), (1 / 900) ** 0.5, 300**-0.5),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), (2 / 200) ** 0.5, None),
        (lambda t: init.trunc_normal_(t, std=0.1, a=-0.1, b=0.1), 0.054, 0.1),
        (lambda t: init.trunc_normal_(t, a=3.0, b=4.0), None, 4.0),
    ],
)
def test_distributions(device, fill, std, bound):
    t = dtrain.empty(200, 300, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mean far outside the interval
        assert fill(t) is t and t._version > 0
    values = to_numpy(t)
    if std is not None:
        assert abs(values.std() / std - 1) < 0.02
    if bound is not None:
        assert abs(values).max() <= bound


def test_trained_leaves_are_filled_without_recording(device):
    p = dtrain.nn.Parameter(dtrain.zeros(3, 3, device=device))
    init.eye_(p)
    assert p.is_leaf and p.requires_grad and to_numpy(p).tolist() == np.eye(3).tolist()
    init.constant_(p, 2)
    assert (to_numpy(p) == 2).all()
    init.ones_(p)
    init.zeros_(p)
    assert not to_numpy(p).any()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 3, 2)])
def test_orthogonal(device, shape):
    t = init.orthogonal_(dtrain.empty(shape, device=device), gain=2.0)
    flat = to_numpy(t).reshape(shape[0], -1)
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    check_close(gram, 4 * np.eye(len(gram)), 1e-5)


def test_dirac_passes_channels_through(device):
    conv = dtrain.nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False, device=device)
    init.dirac_(conv.weight, groups=2)
    x = dtrain.randn(1, 4, 5, 5, device=device)
    check_close(conv(x).detach(), x)


def test_sparse(device):
    t = init.sparse_(dtrain.empty(10, 50, device=device), 0.3)
    assert ((to_numpy(t) == 0).sum(0) == 3).all()


@pytest.mark.parametrize("name", ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_normal_", "orthogonal_", "eye_", "sparse_"])
def test_meta_tensors_stay_empty(name):
    t = dtrain.empty(20, 30, device="meta")
    args = (0.5,) if name == "sparse_" else ()
    assert getattr(init, name)(t, *args) is t


@pytest.mark.parametrize(
    "fill, error",
    [
        (lambda: init.xavier_uniform_(dtrain.empty(3)), ShapeError),
        (lambda: init.eye_(dtrain.empty(3)), ShapeError),
        (lambda: init.dirac_(dtrain.empty(3, 3)), ShapeError),
        (lambda: init.dirac_(dtrain.empty(3, 3, 3), groups=2), ArgumentError),
        (lambda: init.orthogonal_(dtrain.empty(3)), ShapeError),
        (lambda: init.sparse_(dtrain.empty(3), 0.1), ShapeError),
        (lambda: init.calculate_gain("gelu"), ArgumentError),
        (lambda: init.calculate_gain("leaky_relu", "steep"), ArgumentError),
        (lambda: init.kaiming_uniform_(dtrain.empty(3, 3), mode="fan"), ArgumentError),
        (lambda: init.trunc_normal_(dtrain.empty(3), a=2.0, b=1.0), ArgumentError),
    ],
)
def test_refusals(fill, error):
    with pytest.raises(error):
        fill()
