"""autograd.Function: contexts, several outputs, second order, misuse; and gradcheck itself."""

import numpy as np
import pytest

import dtrain
from dtrain.autograd import Function, gradcheck, gradgradcheck
from dtrain.errors import GraphError


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class SumAndProduct(Function):
    @staticmethod
    def forward(x, y, scale):
        return (x + y) * scale, x * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.scale = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx, g_sum, g_product):
        x, y = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, True, False)
        return g_sum * ctx.scale + g_product * y, g_sum * ctx.scale + g_product * x, None


def leaf(*shape, seed=0):
    return dtrain.tensor(np.random.default_rng(seed).standard_normal(shape)).requires_grad_()


@pytest.mark.parametrize("function", [Cube, Exp])
def test_first_and_second_order(function):
    assert gradcheck(function.apply, (leaf(3, 2),))
    assert gradgradcheck(function.apply, (leaf(3, 2),))


def test_several_outputs_and_plain_arguments():
    assert gradcheck(lambda x, y: SumAndProduct.apply(x, y, 2.0), (leaf(3), leaf(3, seed=1)))
    x, y = leaf(3), leaf(3, seed=1)
    total, _ = SumAndProduct.apply(x, y, 2.0)  # the other output gets zeros
    total.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 2])


def test_wrong_number_of_gradients_is_named():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(GraphError, match="Bad.backward returned 1 gradients, but forward took 2"):
        Bad.apply(leaf(2), leaf(2)).sum().backward()


def test_saved_tensor_changed_in_place_is_noticed():
    x = leaf(3)
    y = x * 1
    z = Cube.apply(y)
    y.add_(1)
    with pytest.raises(GraphError, match="Cube.*modified in place"):
        z.sum().backward()


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(Cube):
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 * x * x

    with pytest.raises(GraphError, match="differs"):
        gradcheck(Wrong.apply, (leaf(3),))
    assert not gradcheck(Wrong.apply, (leaf(3),), raise_exception=False)


def test_gradcheck_asks_for_float64():
    with pytest.raises(GraphError, match="float64"):
        gradcheck(lambda x: x * 2, (leaf(3).float().detach().requires_grad_(),))
