"""Hooks around forward and backward."""

import pytest

import dtrain
from dtrain import nn
from tests.util import check_close, to_numpy


class Scale(nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = nn.Parameter(dtrain.tensor(factor))

    def forward(self, x, plus=0.0):
        return x * self.factor + plus


def test_forward_hooks_see_and_replace():
    m, x, seen = Scale(), dtrain.ones(2), []
    handles = [
        m.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
        m.register_forward_hook(lambda module, args, out: seen.append((args[0].tolist(), out.tolist()))),
        m.register_forward_hook(lambda module, args, out: out * 10),
    ]
    assert m(x).tolist() == [40.0, 40.0] and seen == [([2.0, 2.0], [4.0, 4.0])]
    for handle in handles:
        handle.remove()
    assert m(x).tolist() == [2.0, 2.0]


def test_hooks_with_keyword_arguments():
    m, seen = Scale(), []
    m.register_forward_pre_hook(lambda module, args, kwargs: (args, {"plus": kwargs["plus"] + 1}), with_kwargs=True)
    m.register_forward_hook(lambda module, args, kwargs, out: seen.append(kwargs), with_kwargs=True)
    assert m(dtrain.ones(1), plus=3.0).tolist() == [6.0] and seen == [{"plus": 4.0}]
    m.register_forward_pre_hook(lambda module, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(TypeError, match="returns None or"):
        m(dtrain.ones(1), plus=3.0)


def test_order_and_with_blocks():
    m, seen = Scale(), []
    m.register_forward_hook(lambda *a: seen.append("first"))
    with m.register_forward_hook(lambda *a: seen.append("before"), prepend=True):
        m(dtrain.ones(1))
    m(dtrain.ones(1))
    assert seen == ["before", "first", "first"]


def test_always_called():
    class Fails(nn.Module):
        def forward(self):
            raise KeyError("x")

    m, seen = Fails(), []
    m.register_forward_hook(lambda module, args, out: seen.append(out), always_call=True)
    m.register_forward_hook(lambda module, args, out: seen.append("never"))
    with pytest.raises(KeyError):
        m()
    assert seen == [None]


def test_hooks_of_all_modules():
    seen = []
    with nn.register_module_forward_pre_hook(lambda m, args: seen.append("pre " + type(m).__name__)):
        with nn.register_module_forward_hook(lambda m, args, out: seen.append(type(m).__name__)):
            nn.Sequential(Scale())(dtrain.ones(1))
    nn.Sequential(Scale())(dtrain.ones(1))
    assert seen == ["pre Sequential", "pre Scale", "Scale", "Sequential"]


def test_full_backward_hooks(device):
    m = Scale().to(device)
    seen = {}
    m.register_full_backward_pre_hook(lambda module, grads: (grads[0] * 3,))
    m.register_full_backward_hook(lambda module, gi, go: seen.update(gi=gi, go=go))
    m.register_full_backward_hook(lambda module, gi, go: (gi[0] + 1,))
    x = dtrain.ones(2, device=device).requires_grad_()
    m(x).sum().backward()
    assert to_numpy(seen["go"][0]).tolist() == [3.0, 3.0] and to_numpy(seen["gi"][0]).tolist() == [6.0, 6.0]
    assert to_numpy(x.grad).tolist() == [7.0, 7.0] and to_numpy(m.factor.grad) == 6.0


def test_full_backward_hook_without_input_gradients_and_with_several_outputs():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = Scale()

        def forward(self, x, y):
            return {"a": self.scale(x), "b": (self.scale(y), 3)}

    m, seen = Split(), []
    m.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
    out = m(dtrain.ones(2), dtrain.ones(3))
    assert out["b"][1] == 3
    (out["a"].sum() + out["b"][0].sum() * 5).backward()
    gi, go = seen[0]
    assert gi == (None, None) and [g.tolist() for g in go] == [[1.0, 1.0], [5.0, 5.0, 5.0]]


def test_full_backward_hooks_in_a_double_backward():
    m, seen = nn.Sequential(Scale(), nn.Tanh()).double(), []
    m.register_full_backward_hook(lambda module, gi, go: seen.append(gi[0]))
    x = dtrain.tensor([0.3, -0.7], dtype=dtrain.float64).requires_grad_()
    (g,) = dtrain.autograd.grad(m(x).sum(), x, create_graph=True)
    (h,) = dtrain.autograd.grad(g.sum(), x)
    y = (2 * x.detach()).tanh()
    check_close(seen[0].detach(), 2 * (1 - y * y), 1e-12)
    check_close(h, -8 * y * (1 - y * y), 1e-12)
    assert seen[0].requires_grad


def test_a_wrong_number_of_gradients_is_refused():
    m = Scale()
    m.register_full_backward_hook(lambda module, gi, go: (gi[0], gi[0]))
    with pytest.raises(TypeError, match="returned 2 gradients, expected 1"):
        m(dtrain.ones(1).requires_grad_()).sum().backward()


def test_no_backward_hooks_under_no_grad():
    m, seen = Scale(), []
    m.register_full_backward_hook(lambda module, gi, go: seen.append(1))
    with dtrain.no_grad():
        assert not m(dtrain.ones(1)).requires_grad
    assert seen == []
