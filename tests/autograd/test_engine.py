"""The engine: accumulation, freeing, hooks, captured inputs, second order, and graphs that die by reference count."""

import gc
import weakref

import numpy as np
import pytest

import dtrain
from dtrain.autograd import engine
from dtrain.errors import GraphError


def leaf(*shape, seed=0, device="cpu"):
    values = np.random.default_rng(seed).standard_normal(shape)
    return dtrain.tensor(values, device=device).requires_grad_()


def values(t):
    return t.detach().cpu().numpy()


def test_gradients_accumulate_until_cleared(device):
    x = leaf(3, device=device)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    np.testing.assert_allclose(values(x.grad), [5, 5, 5])
    x.grad = None
    (x * 3).sum().backward()
    np.testing.assert_allclose(values(x.grad), [3, 3, 3])


def test_a_value_used_many_times_gets_the_sum(device):
    x = leaf(4, device=device)
    y = x * x
    (y + y * x + y).sum().backward()
    v = values(x)
    np.testing.assert_allclose(values(x.grad), 4 * v + 3 * v**2)


def test_grads_of_two_leaves_never_share_memory():
    a, b = leaf(3), leaf(3, seed=1)
    (a + b).backward(dtrain.ones(3, dtype=dtrain.float64))
    a.grad.mul_(7)
    np.testing.assert_array_equal(values(b.grad), [1, 1, 1])


def test_the_gradient_given_is_not_adopted():
    a = leaf(3)
    seed = dtrain.ones(3, dtype=dtrain.float64)
    a.backward(seed)
    a.grad.mul_(7)
    np.testing.assert_array_equal(values(seed), [1, 1, 1])


def test_second_backward_says_what_to_do():
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(GraphError, match="detach.*retain_graph"):
        loss.backward()


def test_retain_graph_allows_a_second_backward():
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    np.testing.assert_allclose(values(x.grad), 4 * values(x))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda x: (x * 2).backward(), "needs a gradient argument"),
        (lambda x: x.detach().sum().backward(), "no graph"),
        (lambda x: (x * 2).sum().backward(dtrain.ones(3, dtype=dtrain.float64)), r"shape \(3,\)"),
        (lambda x: engine.grad(x.sum(), leaf(2)), "was not used"),
        (lambda x: x.numpy(), "detach"),
        (lambda x: x.add_(1), "leaf tensor that requires grad"),
        (lambda x: x[0].add_(1), "view of a leaf"),
    ],
)
def test_misuse_is_explained(make, words):
    with pytest.raises(RuntimeError, match=words):
        make(leaf(3))


def test_saved_value_changed_in_place_is_noticed_by_name():
    x = leaf(3)
    y = x.exp()
    y.add_(1)
    with pytest.raises(GraphError, match="Exp.*modified in place"):
        y.sum().backward()


def test_a_write_through_a_view_is_noticed_too():
    x = leaf(2, 3)
    y = x * 1
    z = y * y
    y[0].zero_()
    with pytest.raises(GraphError, match="modified in place"):
        z.sum().backward()


def test_inputs_restrict_what_is_written():
    a, b = leaf(3), leaf(3, seed=1)
    mid = a * b
    (mid * mid).sum().backward(inputs=[a, mid])
    assert b.grad is None
    np.testing.assert_allclose(values(mid.grad), 2 * values(mid))
    np.testing.assert_allclose(values(a.grad), 2 * values(mid) * values(b))


def test_grad_of_intermediate_and_unused():
    a, unused = leaf(3), leaf(2, seed=2)
    mid = a * 2
    g_mid, g_a, none = dtrain.autograd.grad((mid * mid).sum(), (mid, a, unused), allow_unused=True)
    np.testing.assert_allclose(values(g_mid), 2 * values(mid))
    np.testing.assert_allclose(values(g_a), 4 * values(mid))
    assert none is None and a.grad is None


def test_double_backward_of_a_gradient_penalty(device):
    x = leaf(5, device=device)
    (g,) = dtrain.autograd.grad((x**3).sum(), x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(values(x.grad), 36 * values(x) ** 3, rtol=1e-10)


def test_tensor_hooks_see_and_replace_gradients():
    x = leaf(3)
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(values(g).copy()) or g * 10)
    handle = x.register_hook(lambda g: g + 1)
    y.sum().backward()
    np.testing.assert_array_equal(seen[0], [1, 1, 1])
    np.testing.assert_array_equal(values(x.grad), [21, 21, 21])
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    np.testing.assert_array_equal(values(x.grad), [2, 2, 2])


def test_post_accumulate_hook_runs_once_when_the_sum_is_complete_and_before_the_end():
    early, late = leaf(3), leaf(3, seed=1)
    events = []
    early.register_post_accumulate_grad_hook(lambda p: events.append(("early", values(p.grad).copy())))
    late.register_post_accumulate_grad_hook(lambda p: events.append(("late", values(p.grad).copy())))
    first = late * 1  # made first, so its gradient is complete last
    ((first * 2) + early + early).sum().backward()
    assert [name for name, _ in events] == ["early", "late"]
    np.testing.assert_array_equal(events[0][1], [2, 2, 2])


def test_retain_grad():
    x = leaf(3)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    np.testing.assert_allclose(values(y.grad), 2 * values(y))


def test_gradient_slot_receives_the_first_gradient_and_accumulates():
    x = leaf(3)
    slot = np.full(3, 9.0)
    x._more = {"slot": slot}
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    np.testing.assert_array_equal(slot, [5, 5, 5])
    assert x.grad._array is slot


def test_after_backward_runs_after_the_last_gradient():
    x, y = leaf(3), leaf(3)
    order = []
    x.register_post_accumulate_grad_hook(lambda p: engine.after_backward(lambda: order.append(y.grad is not None)))
    (y * 1 * x).sum().backward()
    assert order == [True]


def test_graph_dies_by_reference_count():
    gc.collect()
    gc.disable()
    try:
        x = leaf(4, 4)
        y = (x @ x).tanh()
        z = y[1:] * 2
        z.mul_(3)
        loss = z.exp().sum()
        loss.backward()
        references = [weakref.ref(t) for t in (y, z, loss)]
        del y, z, loss
        assert [r() for r in references] == [None] * 3
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_deep_graph_needs_no_recursion():
    x = leaf(2)
    y = x
    for _ in range(20000):
        y = y + 1
    y.sum().backward()
    np.testing.assert_array_equal(values(x.grad), [1, 1])
    del y


def test_no_grad_forms():
    x = leaf(3)
    with dtrain.no_grad():
        assert not (x * 2).requires_grad
        with dtrain.enable_grad():
            assert (x * 2).requires_grad

    @dtrain.no_grad()
    def quiet():
        return x * 2

    @dtrain.no_grad
    def plain():
        return x * 2

    @dtrain.no_grad()
    def numbers():
        yield dtrain.is_grad_enabled()

    assert not quiet().requires_grad and not plain().requires_grad and list(numbers()) == [False]
    assert dtrain.is_grad_enabled()
    with dtrain.set_grad_enabled(False):
        assert not dtrain.is_grad_enabled()
    assert dtrain.is_grad_enabled()
    with dtrain.inference_mode():
        assert not (x * 2).requires_grad


def test_grad_mode_belongs_to_the_thread():
    import threading

    seen = []
    with dtrain.no_grad():
        thread = threading.Thread(target=lambda: seen.append(dtrain.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]
