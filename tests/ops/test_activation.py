"""Activations: gradients to second order, and the pieces a comparison with PyTorch does not reach."""

import numpy as np
import pytest

import dtrain
from dtrain.backend import blocks, native
from dtrain.errors import ArgumentError, DtypeError, ShapeError
from dtrain.ops import activation, piecewise, special
from tests.ops.util import check_grad, normal, to_numpy

SMOOTH = "gelu silu softplus logsigmoid mish elu selu celu softsign tanhshrink".split()
PIECES = "relu leaky_relu hardtanh relu6 hardsigmoid hardswish softshrink hardshrink".split()


@pytest.mark.parametrize("name", SMOOTH + PIECES)
def test_gradients(name, device):
    check_grad(getattr(activation, name, None) or getattr(piecewise, name), normal(3, 4) * 2, device=device)


@pytest.mark.parametrize("fn, operands", [
    (lambda x: activation.gelu(x, "tanh"), [normal(3, 4)]),
    (lambda x: activation.softplus(x, 3.0, 2.0), [normal(3, 4)]),
    (lambda x: activation.elu(x, 0.7), [normal(3, 4)]),
    (lambda x: activation.celu(x, 1.7), [normal(3, 4)]),
    (lambda x: activation.glu(x, 1), [normal(3, 4, 2)]),
    (lambda x: piecewise.leaky_relu(x, 1.5), [normal(3, 4)]),
    (lambda x: piecewise.threshold(x, 0.3, 2.0), [normal(3, 4)]),
    (piecewise.prelu, [normal(2, 3, 4), normal(3, seed=1)]),
    (piecewise.prelu, [normal(2, 3, 4), normal(1, seed=1)]),
    (special.erf, [normal(3, 4)]),
    (special.erfc, [normal(3, 4)]),
])  # fmt: skip
def test_gradients_of_variants(fn, operands, device):
    check_grad(fn, *operands, device=device)


def test_elu_at_zero_has_both_derivatives():
    x = dtrain.tensor([0.0, 0.0], dtype=dtrain.float64).requires_grad_()
    (g,) = dtrain.autograd.grad(activation.elu(x, 2.0).sum(), x, create_graph=True)
    (h,) = dtrain.autograd.grad(g.sum(), x)
    assert g.tolist() == [2.0, 2.0] and h.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", ["gelu", "silu", "elu"])
@pytest.mark.parametrize("size", [0, 1, 2 * blocks.BLOCK + 7])
def test_blocks_change_nothing(name, size, monkeypatch):
    """A large array goes through in pieces, a strided one whole."""
    fn = getattr(activation, name)
    x = normal(size, dtype=np.float32)
    with native.disabled():
        in_pieces = to_numpy(fn(dtrain.tensor(x)))
        whole = to_numpy(fn(dtrain.from_numpy(np.repeat(x, 2))[::2]))
    np.testing.assert_allclose(in_pieces, whole, 1e-6)


def test_gelu_kernel_agrees_with_the_plain_body():
    x = normal(1000, dtype=np.float32) * 4
    for form in ("none", "tanh"):
        results = []
        for plain in (False, True):
            t = dtrain.tensor(x).requires_grad_()
            if plain:
                with native.disabled():
                    y = activation.gelu(t, form)
                    y.backward(dtrain.ones_like(y))
            else:
                y = activation.gelu(t, form)
                y.backward(dtrain.ones_like(y))
            results.append((to_numpy(y), to_numpy(t.grad)))
        np.testing.assert_allclose(results[0], results[1], 1e-5, 3e-6)


def test_in_place_activation_keeps_the_gradient():
    x = dtrain.tensor(normal(5)).requires_grad_()
    y = x * 1
    out = piecewise.relu(y, inplace=True)
    assert out is y and (to_numpy(y) >= 0).all()
    y.sum().backward()
    assert (to_numpy(x.grad) == (to_numpy(x.detach()) > 0)).all()


def test_errors_say_what_to_do():
    with pytest.raises(DtypeError, match="float"):
        activation.gelu(dtrain.tensor([1, 2]))
    with pytest.raises(ArgumentError, match="'none' or 'tanh'"):
        activation.gelu(dtrain.tensor([1.0]), approximate="erf")
    with pytest.raises(ArgumentError, match="even"):
        activation.glu(dtrain.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        piecewise.prelu(dtrain.tensor(normal(2, 3)), dtrain.tensor(normal(2)))


def test_erf_is_exact_to_the_last_digits():
    import math

    x = np.concatenate([np.linspace(-7, 27, 3001), [0.0, 1e-300, np.inf, -np.inf]])
    for fn, exact in ((special.erf, math.erf), (special.erfc, math.erfc)):
        want = np.array([exact(v) for v in x])
        normal_numbers = np.abs(want) > 1e-300
        np.testing.assert_allclose(to_numpy(fn(dtrain.tensor(x)))[normal_numbers], want[normal_numbers], 1e-14)
