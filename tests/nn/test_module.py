"""Module: registration, the tree, modes, moves, copies."""

import copy
import pickle

import numpy as np
import pytest

import dtrain
from dtrain import nn
from dtrain.errors import ArgumentError, DeviceError, DtypeError
from tests.util import to_numpy


class Block(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(dtrain.ones(width))
        self.register_buffer("mean", dtrain.zeros(width))
        self.register_buffer("scratch", dtrain.zeros(1), persistent=False)
        self.steps = 7

    def forward(self, x):
        return self.inner(x) * self.scale + self.mean


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.second = nn.Sequential(Block(), nn.ReLU())
        self.shared = self.first.inner

    def forward(self, x):
        return self.second(self.first(x))


def test_assignment_registers():
    m = Block()
    assert list(dict(m.named_parameters())) == ["scale", "inner.weight", "inner.bias"]
    assert list(dict(m.named_buffers())) == ["mean", "scratch"]
    assert list(dict(m.named_children())) == ["inner"]
    assert m.steps == 7 and m.scale is m._parameters["scale"] and m.mean is m._buffers["mean"]
    assert {"inner", "scale", "mean", "steps", "forward"} <= set(dir(m))


def test_assignment_moves_a_name_between_tables():
    m = Block()
    m.extra = 3
    m.extra = nn.Parameter(dtrain.ones(1))
    assert "extra" in m._parameters and "extra" not in m.__dict__
    m.extra = nn.Linear(1, 1)
    assert "extra" in m._modules and "extra" not in m._parameters
    del m.extra
    assert not hasattr(m, "extra")
    m.late = nn.Buffer(dtrain.ones(2), persistent=False)
    assert "late" in m._buffers and "late" not in m.state_dict()
    m.inner = None
    assert m.inner is None and list(m.children()) == []


@pytest.mark.parametrize(
    "act, error, text",
    [
        (lambda m: setattr(m, "scale", dtrain.ones(3)), TypeError, "nn.Parameter"),
        (lambda m: setattr(m, "inner", 3), TypeError, "submodule 'inner'"),
        (lambda m: setattr(m, "mean", 3), TypeError, "buffer 'mean'"),
        (lambda m: m.register_buffer("a.b", dtrain.ones(1)), ArgumentError, "'.'"),
        (lambda m: m.register_buffer("steps", dtrain.ones(1)), ArgumentError, "already has an attribute"),
        (lambda m: m.register_buffer("x", np.ones(1)), TypeError, "ndarray"),
        (lambda m: m.register_parameter("x", dtrain.ones(1)), TypeError, "Parameter"),
        (lambda m: m.add_module("x", 3), TypeError, "Module"),
        (lambda m: m.absent, AttributeError, "'Block' object has no attribute 'absent'"),
        (lambda m: m.train("yes"), ArgumentError, "True or False"),
        (lambda m: m.to(dtrain.int64), DtypeError, "floating"),
        (lambda m: m.get_submodule("inner.deep"), AttributeError, "Linear has no submodule 'deep'"),
        (lambda m: m.get_parameter("inner.weigth"), AttributeError, "'weight', 'bias'"),
        (lambda m: nn.Parameter(np.ones(3)), TypeError, "dtrain.tensor"),
        (lambda m: nn.Parameter(m.scale * 2), RuntimeError, "detach"),
        (lambda m: nn.Module(3), TypeError, "1 positional"),
        (lambda m: nn.Module()(3), TypeError, "has no forward"),
    ],
)
def test_misuse_is_explained(act, error, text):
    with pytest.raises(error, match=text):
        act(Block())


def test_assignment_before_init_is_explained():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="super\\(\\).__init__\\(\\) first in Early"):
        Early()


def test_walks_meet_shared_members_once():
    net = Net()
    assert [name for name, _ in net.named_modules()] == ["", "first", "first.inner", "second", "second.0", "second.0.inner", "second.1"]
    assert "shared" in dict(net.named_modules(remove_duplicate=False))
    assert "shared.weight" not in dict(net.named_parameters()) and "shared.weight" in dict(net.named_parameters(remove_duplicate=False))
    assert len(list(net.parameters())) == 6 and len(list(net.parameters(recurse=False))) == 0
    assert list(dict(net.first.named_parameters(prefix="p", recurse=False))) == ["p.scale"]
    assert "shared.weight" in net.state_dict()


def test_lookup_by_path():
    net = Net()
    assert net.get_submodule("second.0.inner") is net.second[0].inner and net.get_submodule("") is net
    assert net.get_parameter("first.scale") is net.first.scale and net.get_buffer("first.mean") is net.first.mean
    net.set_submodule("second.0.inner", nn.Identity())
    assert isinstance(net.second[0].inner, nn.Identity)


def test_modes_and_apply():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    net.second.train()
    assert net.second[0].training and not net.first.training
    seen = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen[0] == "Linear" and seen[-1] == "Net"
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_zero_grad(device):
    net = Net().to(device)
    net(dtrain.ones(2, 3, device=device)).sum().backward()
    grad = net.first.scale.grad
    net.zero_grad(set_to_none=False)
    assert net.first.scale.grad._array is grad._array and not to_numpy(grad).any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_moves_keep_parameters_the_same_objects(device):
    net = Net()
    before = list(net.parameters())
    values = [to_numpy(p) for p in before]
    net(dtrain.ones(2, 3)).sum().backward()
    assert net.to(device, dtrain.float64) is net
    for p, q, value in zip(before, net.parameters(), values):
        assert p is q and p.dtype is dtrain.float64 and str(p.device) == device
        assert p.grad.dtype is dtrain.float64 and str(p.grad.device) == device
        np.testing.assert_array_equal(to_numpy(p), value)
    assert net.first.mean.dtype is dtrain.float64 and str(net.first.mean.device) == device
    assert net.half().first.scale.dtype is dtrain.float16 and net.bfloat16().first.scale.dtype is dtrain.bfloat16
    assert net.float().cpu().first.scale.dtype is dtrain.float32
    assert net.to(dtrain.ones(1, dtype=dtrain.float64)).first.scale.dtype is dtrain.float64


def test_integer_buffers_keep_their_dtype():
    m = nn.BatchNorm1d(3).double()
    assert m.num_batches_tracked.dtype is dtrain.int64 and m.running_mean.dtype is dtrain.float64


def test_meta_models_hold_nothing():
    with dtrain.device("meta"):
        net = nn.Linear(10**6, 10**6)
    assert net.weight.is_meta and net.weight.shape == (10**6, 10**6)
    with pytest.raises(DeviceError, match="to_empty"):
        net.to("cpu")
    small = nn.Linear(3, 2, device="meta").to_empty(device="cpu")
    assert small.weight.shape == (2, 3) and not small.weight.is_meta


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(duplicate, device):
    net = Net().to(device)
    net.first.scale.note = "kept"
    again = duplicate(net)
    assert again.shared is again.first.inner and again.first.inner is not net.first.inner
    assert again.first.scale.requires_grad and isinstance(again.first.scale, nn.Parameter)
    with dtrain.no_grad():
        again.first.scale.zero_()
    assert to_numpy(net.first.scale).all()
    x = dtrain.ones(1, 3, device=device)
    assert net(x).shape == again(x).shape


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Block(\n    (inner): Linear(in_features=3, out_features=3, bias=True)\n  )\n"
        "  (second): Sequential(\n    (0): Block(\n      (inner): Linear(in_features=3, out_features=3, bias=True)\n    )\n    (1): ReLU()\n  )\n"
        "  (shared): Linear(in_features=3, out_features=3, bias=True)\n)"
    )
    assert repr(nn.Parameter(dtrain.ones(2))).startswith("Parameter containing:\ntensor(")


def test_nothing_keeps_a_dropped_model_alive():
    """No reference cycles: memory returns when the last name goes, not when the collector runs."""
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        net = Net()
        alive = [weakref.ref(net), weakref.ref(net.first.inner.weight)]
        net(dtrain.ones(2, 3)).sum().backward()
        del net
        assert [r() for r in alive] == [None, None]
    finally:
        gc.enable()
