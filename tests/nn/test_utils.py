"""Clipping, and parameters as a vector."""

import numpy as np
import pytest

import dtrain
from dtrain import nn
from dtrain.errors import NonFiniteError, ShapeError
from tests.util import check_close, normal, to_numpy


def with_gradients(device, dtype=np.float32):
    params = [nn.Parameter(dtrain.tensor(normal(*shape, dtype=dtype), device=device)) for shape in ((3, 4), (), (5,))]
    for i, p in enumerate(params):
        p.grad = dtrain.tensor(normal(*p.shape, dtype=dtype, seed=i + 1), device=device)
    return [*params, nn.Parameter(dtrain.ones(2, device=device))]


def flat(params):
    return np.concatenate([to_numpy(p.grad).ravel().astype(np.float64) for p in params if p.grad is not None])


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf"), float("-inf"), 0.0])
def test_the_norm_is_that_of_one_vector(device, norm_type):
    params = with_gradients(device)
    before = flat(params)
    total = nn.utils.clip_grad_norm_(params, 0.5, norm_type)
    assert str(total.device) == device and total.shape == ()
    check_close(total, np.linalg.norm(before, norm_type), 1e-5)
    check_close(flat(params), before * min(1.0, 0.5 / (np.linalg.norm(before, norm_type) + 1e-6)), 1e-5)


def test_small_gradients_stay_bit_for_bit(device):
    params = with_gradients(device)
    before = flat(params)
    nn.utils.clip_grad_norm_(iter(params), 1000.0)
    np.testing.assert_array_equal(flat(params), before)


def test_halves_do_not_overflow(device):
    p = nn.Parameter(dtrain.ones(1000, dtype=dtrain.float16, device=device))
    p.grad = dtrain.ones(1000, dtype=dtrain.float16, device=device) * 10000
    total = nn.utils.clip_grad_norm_([p], 1.0)
    assert total.dtype is dtrain.float32 and total.item() == pytest.approx(316227.8)
    assert to_numpy(p.grad)[0] == pytest.approx(10000 / 316227.8, rel=1e-2)


def test_not_finite(device):
    params = with_gradients(device)
    params[0].grad[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="nan"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert np.isnan(nn.utils.clip_grad_norm_(params, 1.0).item())


def test_nothing_to_clip():
    assert nn.utils.clip_grad_norm_([nn.Parameter(dtrain.ones(2))], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="generator"):
        nn.utils.clip_grad_norm_((p for p in []), 1.0)


def test_by_value(device):
    params = with_gradients(device)
    before, memory = flat(params), params[0].grad._array
    nn.utils.clip_grad_value_(params, 0.3)
    assert params[0].grad._array is memory
    check_close(flat(params), before.clip(-0.3, 0.3), 1e-7)


def test_parameters_as_a_vector(device):
    m = nn.Linear(3, 2).to(device)
    vector = nn.utils.parameters_to_vector(m.parameters())
    assert vector.shape == (8,) and vector.requires_grad
    nn.utils.vector_to_parameters(vector.detach() * 0 + 2, m.parameters())
    assert (to_numpy(m.weight) == 2).all() and (to_numpy(m.bias) == 2).all()
    with pytest.raises(ShapeError, match="8 numbers"):
        nn.utils.vector_to_parameters(dtrain.ones(7, device=device), m.parameters())
