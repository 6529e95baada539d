"""Optimizers: the update's law, groups, state, hooks, refusals. Their numbers are compared with PyTorch's in tests/parity."""

import copy
import pickle

import numpy as np
import pytest

import dtrain
from dtrain import nn, optim
from dtrain.errors import ArgumentError, GraphError, StateDictError, UnsupportedError
from dtrain.optim import _blocks
from tests.util import check_close, normal, to_numpy

MAKERS = [
    lambda ps: optim.SGD(ps, lr=0.1),
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True),
    lambda ps: optim.AdamW(ps, lr=0.1, weight_decay=0.1),
]


def parameter(*shape, device="cpu", dtype=np.float32, seed=0):
    return nn.Parameter(dtrain.tensor(normal(*shape, dtype=dtype, seed=seed), device=device))


def give_gradients(params, seed):
    for i, p in enumerate(params):
        p.grad = dtrain.tensor(normal(*p.shape, dtype=to_numpy(p).dtype, seed=seed * 100 + i), device=p.device)


def run(make, params, steps=3, first=0):
    optimizer = make(params)
    for i in range(first, steps):
        give_gradients(params, i)
        optimizer.step()
    return optimizer


def reference(name, p, g, steps, lr=0.1, wd=0.0, mu=0.9, b1=0.9, b2=0.999, eps=1e-8):
    """The textbook updates in float64."""
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        d = g(t - 1)
        if name == "sgd":
            p = p - lr * d
        elif name == "nesterov":
            d = d + wd * p
            m = d if t == 1 else mu * m + d
            p = p - lr * (d + mu * m)
        else:
            p = p * (1 - lr * wd)
            m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
            largest = np.maximum(largest, v)
            second = largest if name == "amsgrad" else v
            p = p - lr * (m / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
    return p


@pytest.mark.parametrize("make, name, wd", list(zip(MAKERS, ["sgd", "nesterov", "amsgrad", "adamw"], [0, 0.1, 0, 0.1])))
@pytest.mark.parametrize("shape", [(3, 4), (), (_blocks.BLOCK + 7,), (3, _blocks.BLOCK)])
def test_the_textbook_update(device, make, name, wd, shape):
    p = parameter(*shape, device=device, dtype=np.float64)
    start = to_numpy(p).copy()
    run(make, [p], steps=4)
    check_close(p.detach(), reference(name, start, lambda i: normal(*shape, seed=i * 100), 4, wd=wd), 1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_blocks_do_not_change_the_result(make, monkeypatch):
    whole, blocked, transposed = parameter(50, 70), parameter(50, 70), nn.Parameter(dtrain.tensor(normal(50, 70, dtype=np.float32).T.copy()).T)
    run(make, [whole])
    monkeypatch.setattr(_blocks, "BLOCK", 512)
    run(make, [blocked])
    assert not transposed.is_contiguous()
    run(make, [transposed])
    np.testing.assert_array_equal(to_numpy(whole), to_numpy(blocked))
    np.testing.assert_array_equal(to_numpy(whole), to_numpy(transposed))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", MAKERS)
def test_halves_compute_in_float32(device, make, dtype):
    kind = getattr(dtrain, dtype)
    p, wide = (nn.Parameter(dtrain.tensor(normal(300), dtype=kind, device=device).to(d)) for d in (kind, dtrain.float32))
    for q in (p, wide):
        q.grad = dtrain.tensor(normal(300, seed=3), dtype=kind, device=device).to(q.dtype)
        make([q]).step()
    assert p.dtype is kind
    np.testing.assert_array_equal(to_numpy(p.detach().float()), to_numpy(wide.detach().to(kind).float()))


@pytest.mark.parametrize("make", MAKERS)
def test_steps_are_in_place_and_counted(device, make):
    p, idle = parameter(3, device=device), parameter(3, device=device)
    memory, version = p._array, p._version
    p.grad = dtrain.ones(3, device=device)
    optimizer = make([p, idle])
    before = to_numpy(idle).copy()
    optimizer.step()
    assert p._array is memory and p._version == version + 1
    np.testing.assert_array_equal(to_numpy(idle), before)
    assert idle not in optimizer.state
    optimizer.zero_grad()
    assert p.grad is None
    p.grad = dtrain.ones(3, device=device)
    optimizer.zero_grad(set_to_none=False)
    assert not to_numpy(p.grad).any()


def test_a_saved_value_that_a_step_changed_is_noticed():
    p = parameter(3)
    loss = (p * p).sum()
    p.grad = dtrain.ones(3)
    optim.SGD([p]).step()
    with pytest.raises(GraphError, match="modified in place"):
        loss.backward()


@pytest.mark.parametrize("make", MAKERS)
def test_state_dict_continues(device, make):
    ps, qs = ([parameter(4, 2, device=device), parameter(3, device=device)] for _ in range(2))
    run(make, ps, 6)
    half = run(make, qs, 3)
    saved = pickle.loads(pickle.dumps(half.state_dict()))
    fresh = make(qs)
    fresh.load_state_dict(saved)
    for i in range(3, 6):
        give_gradients(qs, i)
        fresh.step()
    for p, q in zip(ps, qs):
        np.testing.assert_array_equal(to_numpy(p), to_numpy(q))
    for values in fresh.state.values():
        assert all(str(v.device) == device for k, v in values.items() if k != "step")


def test_loaded_state_is_a_copy_in_the_parameters_dtype():
    p, q = parameter(3), parameter(3, dtype=np.float64)
    a = run(MAKERS[3], [p])
    b = optim.Adam([q])
    b.load_state_dict(a.state_dict())
    assert b.state[q]["exp_avg"].dtype is dtrain.float64 and b.state[q]["step"].dtype is dtrain.float32
    assert b.state[q]["step"] is not a.state[p]["step"] and b.param_groups[0]["weight_decay"] == 0.1
    c = optim.AdamW([q])
    c.load_state_dict(optim.Adam([q]).state_dict())
    assert c.param_groups[0]["decoupled_weight_decay"] is True


def test_groups_and_names():
    a, b, c = parameter(2), parameter(3), parameter(1)
    optimizer = optim.SGD([dict(params=[a], lr=0.5), dict(params=b)], lr=0.1, momentum=0.9)
    optimizer.add_param_group(dict(params=[c], momentum=0.0))
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1, 0.1] and [g["momentum"] for g in optimizer.param_groups] == [0.9, 0.9, 0.0]
    assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]
    named = optim.Adam(nn.Linear(2, 2).named_parameters())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")


def test_hooks():
    p, seen = parameter(2), []
    optimizer = optim.SGD([p], lr=1.0)
    pre = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    optimizer.step()
    pre.remove()
    optimizer.step()
    assert seen == ["pre", "post", "post"]
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append(state.pop("extra")))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[3:] == [1, "loaded"]


def test_closures_and_own_optimizers():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, dict(lr=lr))

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(group["lr"] * p.grad.sign())

    p = nn.Parameter(dtrain.tensor([1.0, -2.0]))
    optimizer = optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with dtrain.no_grad():
        assert optimizer.step(closure).item() == 5.0
    assert p.tolist() == [0.5, -1.0]
    own, seen = Sign([p], 0.5), []
    own.register_step_post_hook(lambda *a: seen.append(1))
    own.step()
    assert p.tolist() == [0.0, -0.5] and seen == [1]

    class Twice(Sign):
        def step(self, closure=None):
            super().step()
            super().step()

    twice = Twice([p], 0.5)
    twice.register_step_pre_hook(lambda *a: seen.append(2))
    twice.step()
    assert p.tolist() == [-1.0, 0.5] and seen == [1, 2]


def test_deepcopy_and_pickle():
    p = parameter(2)
    optimizer = run(MAKERS[2], [p])
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        (q,) = again.param_groups[0]["params"]
        assert q is not p and to_numpy(again.state[q]["exp_avg"]).tolist() == to_numpy(optimizer.state[p]["exp_avg"]).tolist()


def test_meta_parameters_are_left_alone():
    p = nn.Parameter(dtrain.empty(3, device="meta"))
    p.grad = dtrain.empty(3, device="meta")
    optim.AdamW([p]).step()
    assert p.is_meta


def test_a_learning_rate_may_be_a_tensor():
    p, q = parameter(3), parameter(3)
    give_gradients([p], 1)
    q.grad = p.grad
    optim.SGD([p], lr=dtrain.tensor(0.5)).step()
    optim.SGD([q], lr=0.5).step()
    np.testing.assert_array_equal(to_numpy(p), to_numpy(q))


@pytest.mark.parametrize(
    "build, error, text",
    [
        (lambda p: optim.SGD([]), ArgumentError, "empty parameter list"),
        (lambda p: optim.SGD(p), TypeError, "single Tensor"),
        (lambda p: optim.SGD({p}), TypeError, "no order"),
        (lambda p: optim.SGD([3]), TypeError, "parameter 0 is int"),
        (lambda p: optim.SGD([p * 2]), GraphError, "only leaves"),
        (lambda p: optim.SGD([dict(params=[p]), dict(params=[p])]), ArgumentError, "another parameter group"),
        (lambda p: optim.SGD([dict(parms=[p])]), ArgumentError, "needs 'params'"),
        (lambda p: optim.SGD([("a", p), parameter(1)]), ArgumentError, "names"),
        (lambda p: optim.SGD([p], lr=-1), ArgumentError, "lr must not be negative, got -1"),
        (lambda p: optim.SGD([p], lr=float("nan")), ArgumentError, "nan"),
        (lambda p: optim.SGD([p], nesterov=True), ArgumentError, "nesterov needs momentum"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ArgumentError, r"betas\[1\]"),
        (lambda p: optim.Adam([p], betas=(0.9,)), ArgumentError, "two numbers"),
        (lambda p: optim.AdamW([p], differentiable=True), UnsupportedError, "outside the graph"),
        (lambda p: optim.AdamW([p], foreach=True, fused=True), ArgumentError, "cannot both"),
        (lambda p: optim.Optimizer([p], {}).step(), TypeError, "neither step"),
        (lambda p: optim.SGD([p]).load_state_dict({"weight": 1}), StateDictError, "'state' and 'param_groups'"),
        (lambda p: optim.SGD([p]).load_state_dict(optim.SGD([dict(params=[p]), dict(params=[parameter(1)])]).state_dict()), StateDictError, "2"),
        (lambda p: optim.SGD([p]).load_state_dict(optim.SGD([p, parameter(1)]).state_dict()), StateDictError, r"\[1\] parameters.*\[2\]"),
        (lambda p: optim.Adam([p]).load_state_dict(run(MAKERS[2], [parameter(5)]).state_dict()), StateDictError, r"'exp_avg' has shape \(5,\)"),
    ],
)
def test_misuse_is_explained(build, error, text):
    with pytest.raises(error, match=text):
        build(parameter(3))


def test_a_parameter_given_twice_is_warned_about():
    p = parameter(3)
    with pytest.warns(UserWarning, match="twice"):
        optim.SGD([p, p])


def test_training_goes_down(device):
    dtrain.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).to(device)
    x = dtrain.tensor(normal(32, 8, dtype=np.float32), device=device)
    y = (x * x).sum(1, keepdim=True)
    for make in MAKERS[::-1]:
        optimizer = make(model.parameters())
        optimizer.param_groups[0]["lr"] = 0.01
        losses = []
        for _ in range(15):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
