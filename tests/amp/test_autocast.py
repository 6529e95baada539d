"""Autocast: which operations run in which dtype, the cache of cast weights, nesting, gradients in the parameters' dtype."""

import numpy as np
import pytest

import dtrain
from dtrain import nn
from dtrain.nn import functional as F

HALF = dtrain.bfloat16


def model():
    dtrain.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))


def test_products_in_half_and_sensitive_operations_in_float32():
    a, b = dtrain.randn(3, 4), dtrain.randn(4, 5)
    with dtrain.autocast("cpu"):
        product = a @ b
        assert product.dtype is HALF
        assert F.linear(a, b.t()).dtype is HALF
        assert F.softmax(product, -1).dtype is dtrain.float32
        assert F.cross_entropy(product, dtrain.tensor([0, 1, 2])).dtype is dtrain.float32
        assert product.exp().dtype is dtrain.float32
        assert (product + 1).dtype is HALF and F.relu(product).dtype is HALF
        assert (product + b.sum()).dtype is HALF  # a 0-dim operand does not widen
        assert (product + dtrain.randn(5)).dtype is dtrain.float32
    assert (a @ b).dtype is dtrain.float32


def test_float64_keeps_its_precision():
    a = dtrain.randn(3, 3, dtype=dtrain.float64)
    with dtrain.autocast("cpu"):
        assert (a @ a).dtype is dtrain.float64


def test_gradients_arrive_in_the_parameters_dtype_and_near_those_of_float32():
    x, y = dtrain.randn(32, 8), dtrain.randn(32, 4)
    full, mixed = model(), model()
    F.mse_loss(full(x), y).backward()
    with dtrain.autocast("cpu", dtype=HALF):
        loss = F.mse_loss(mixed(x), y)
    loss.backward()
    for p, q in zip(full.parameters(), mixed.parameters()):
        assert q.grad.dtype is dtrain.float32
        a, b = p.grad.numpy(), q.grad.numpy()
        assert 0 < np.linalg.norm(a - b) < 0.03 * np.linalg.norm(a)


def test_it_trains():
    net = model()
    optimizer = dtrain.optim.Adam(net.parameters(), lr=1e-2)
    x = dtrain.randn(64, 8)
    y = x[:, :4].sin()
    losses = []
    for _ in range(60):
        with dtrain.autocast("cpu", dtype=HALF):
            loss = F.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_weights_are_cast_once_a_block_and_again_after_a_change():
    weight = dtrain.randn(4, 4).requires_grad_()
    x = dtrain.randn(2, 4)
    with dtrain.autocast("cpu") as mode:
        first = x @ weight
        assert len(mode._cache) == 1
        np.testing.assert_array_equal((x @ weight).float().detach().numpy(), first.float().detach().numpy())
        with dtrain.no_grad():
            weight.mul_(2)
        np.testing.assert_allclose((x @ weight).float().detach().numpy(), 2 * first.float().detach().numpy())
    assert not mode._cache


def test_a_weight_first_used_under_no_grad_still_gets_its_gradient():
    weight = dtrain.randn(4, 4).requires_grad_()
    x = dtrain.randn(2, 4)
    with dtrain.autocast("cpu"):
        with dtrain.no_grad():
            x @ weight
        (x @ weight).sum().backward()
    assert weight.grad is not None


def test_nesting_and_switching_off():
    a = dtrain.randn(3, 3)
    with dtrain.autocast("cpu"):
        with dtrain.autocast("cpu", enabled=False):
            assert (a @ a).dtype is dtrain.float32
        with dtrain.autocast("cpu", dtype=dtrain.float16):
            assert (a @ a).dtype is dtrain.float16
        assert (a @ a).dtype is HALF


def test_as_a_decorator():
    @dtrain.autocast("cpu", dtype=HALF)
    def product(a):
        return a @ a

    assert product(dtrain.randn(2, 2)).dtype is HALF and not dtrain.amp.is_autocast_enabled()


@pytest.mark.parametrize("arguments", [("tpu",), ("cpu", dtrain.float32)])
def test_what_it_does_not_take(arguments):
    with pytest.raises(ValueError, match="autocast expects"):
        dtrain.autocast(*arguments)
