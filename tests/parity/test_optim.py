"""Optimizers, schedules and clipping do what PyTorch's do."""

import warnings

import numpy as np
import pytest
import torch

import dtrain
from dtrain import optim
from dtrain.optim import lr_scheduler

pytestmark = pytest.mark.parity
SHAPES = [(5, 3), (5,), (200, 300), ()]


def gradients(steps):
    """The same gradients for both sides: (step, parameter) -> array, with a few zeros."""
    rng = np.random.default_rng(1)
    return [[rng.normal(size=shape).astype(np.float32) * (rng.random(shape) > 0.1) for shape in SHAPES] for _ in range(steps)]


def both(name, dtype="float32", **options):
    """Our optimizer and PyTorch's on equal parameters."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    ours = [dtrain.nn.Parameter(dtrain.tensor(v).to(getattr(dtrain, dtype))) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v).to(getattr(torch, dtype))) for v in values]
    return (ours, getattr(optim, name)(ours, **options)), (theirs, getattr(torch.optim, name)(theirs, **options))


def advance(ours, theirs, grads, between=lambda i: None):
    for i, step in enumerate(grads):
        for p, q, g in zip(ours[0], theirs[0], step):
            p.grad = dtrain.tensor(np.asarray(g, np.float32)).to(p.dtype)
            q.grad = torch.tensor(np.asarray(g, np.float32)).to(q.dtype)
        ours[1].step()
        theirs[1].step()
        between(i)


def assert_same(ours, theirs, tolerance=2e-6):
    for p, q in zip(ours[0], theirs[0]):
        np.testing.assert_allclose(p.detach().double().numpy(), q.detach().double().numpy(), rtol=tolerance, atol=tolerance)


OPTIMIZERS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, maximize=True)),
    ("SGD", dict(lr=0.1, weight_decay=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ("Adam", dict(lr=0.01)),
    ("Adam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("Adam", dict(lr=0.01, amsgrad=True, maximize=True)),
    ("Adam", dict(lr=0.01, weight_decay=0.1, maximize=True)),
    ("AdamW", dict(lr=0.01)),
    ("AdamW", dict(lr=0.01, weight_decay=0.3, amsgrad=True)),
]


@pytest.mark.parametrize("name, options", OPTIMIZERS)
def test_steps(name, options):
    ours, theirs = both(name, **options)
    advance(ours, theirs, gradients(20))
    assert_same(ours, theirs)


@pytest.mark.parametrize("name, options", [OPTIMIZERS[0], OPTIMIZERS[3], OPTIMIZERS[6], OPTIMIZERS[10]])
def test_steps_in_float64(name, options):
    ours, theirs = both(name, "float64", **options)
    advance(ours, theirs, gradients(10))
    assert_same(ours, theirs, 1e-12)


@pytest.mark.parametrize("name, options", [OPTIMIZERS[0], OPTIMIZERS[3], OPTIMIZERS[6]])
def test_steps_in_bfloat16(name, options):
    ours, theirs = both(name, "bfloat16", **options)
    advance(ours, theirs, gradients(5))
    assert_same(ours, theirs, 0.05)


@pytest.mark.parametrize("name, options", OPTIMIZERS)
def test_state_dict_is_pytorchs(name, options):
    ours, theirs = both(name, **options)
    advance(ours, theirs, gradients(3))
    mine, other = ours[1].state_dict(), theirs[1].state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert list(mine["state"]) == list(other["state"])
    for number, values in other["state"].items():
        assert list(mine["state"][number]) == list(values)
        for key, value in values.items():
            assert str(mine["state"][number][key].dtype).split(".")[1] == str(value.dtype).split(".")[1]
            np.testing.assert_allclose(mine["state"][number][key].numpy(), value.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, options", OPTIMIZERS)
def test_pytorchs_state_continues_here(name, options):
    ours, theirs = both(name, **options)
    advance(ours, theirs, gradients(5))
    saved = theirs[1].state_dict()
    saved["state"] = {n: {k: v.numpy().copy() for k, v in values.items()} for n, values in saved["state"].items()}
    fresh = getattr(optim, name)(ours[0], lr=77.0)
    fresh.load_state_dict(saved)
    advance((ours[0], fresh), theirs, gradients(8)[5:])
    assert_same(ours, theirs)


SCHEDULES = [
    ("LambdaLR", lambda o: dict(lr_lambda=lambda e: 0.9**e + 0.1 * e)),
    ("MultiplicativeLR", lambda o: dict(lr_lambda=lambda e: 0.9 + 0.01 * e)),
    ("StepLR", lambda o: dict(step_size=3, gamma=0.5)),
    ("MultiStepLR", lambda o: dict(milestones=[2, 5, 5, 11], gamma=0.5)),
    ("ConstantLR", lambda o: dict(factor=0.25, total_iters=4)),
    ("LinearLR", lambda o: dict(start_factor=0.1, end_factor=0.9, total_iters=7)),
    ("ExponentialLR", lambda o: dict(gamma=0.93)),
    ("PolynomialLR", lambda o: dict(total_iters=9, power=2.0)),
    ("CosineAnnealingLR", lambda o: dict(T_max=6, eta_min=0.01)),
    ("CosineAnnealingWarmRestarts", lambda o: dict(T_0=3, T_mult=2, eta_min=0.01)),
    ("OneCycleLR", lambda o: dict(max_lr=[0.5, 0.7], total_steps=25)),
    ("OneCycleLR", lambda o: dict(max_lr=0.5, epochs=5, steps_per_epoch=5, three_phase=True, anneal_strategy="linear")),
]


def schedule_pair(name, options, optimizer="SGD"):
    pair = []
    for library, parameter, schedules in (
        (optim, lambda: dtrain.nn.Parameter(dtrain.ones(2)), lr_scheduler),
        (torch.optim, lambda: torch.nn.Parameter(torch.ones(2)), torch.optim.lr_scheduler),
    ):
        extra = dict(momentum=0.9) if optimizer == "SGD" else {}
        o = getattr(library, optimizer)([dict(params=[parameter()], lr=0.1), dict(params=[parameter()], lr=0.3)], lr=1.0, **extra)
        pair.append((o, getattr(schedules, name)(o, **options(schedules))))
    return pair


def follow(pair, steps=25):
    rates = [[], []]
    for _ in range(steps):
        for i, (o, s) in enumerate(pair):
            o.step()
            s.step()
            rates[i].append([*s.get_last_lr(), *[g["lr"] for g in o.param_groups]])
    return rates


@pytest.mark.parametrize("name, options", SCHEDULES)
def test_schedule(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = follow(schedule_pair(name, options))
    np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-17)


@pytest.mark.parametrize("name, options", SCHEDULES)
def test_schedule_at_a_given_epoch(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = schedule_pair(name, options)
        for epoch in (3, 8, 4):
            for o, s in pair:
                s.step(epoch)
            np.testing.assert_allclose(*[s.get_last_lr() for _, s in pair], rtol=1e-12)


@pytest.mark.parametrize("optimizer, key", [("SGD", "momentum"), ("Adam", "betas")])
def test_one_cycle_momentum(optimizer, key):
    pair = schedule_pair("OneCycleLR", lambda s: dict(max_lr=0.5, total_steps=12), optimizer)
    for _ in range(12):
        for o, s in pair:
            o.step()
            s.step()
        np.testing.assert_allclose(*[[g[key] for g in o.param_groups] for o, _ in pair], rtol=1e-12)


def test_sequential_and_chained():
    def warm_up_then_cosine(schedules, o):
        parts = [schedules.LinearLR(o, 0.1, total_iters=4), schedules.CosineAnnealingLR(o, 10), schedules.ExponentialLR(o, 0.9)]
        return schedules.SequentialLR(o, parts, [4, 14])

    def chained(schedules, o):
        return schedules.ChainedScheduler([schedules.ConstantLR(o, 0.1, 3), schedules.ExponentialLR(o, 0.9)])

    for build in (warm_up_then_cosine, chained):
        ours, theirs = (
            library.SGD([parameter], lr=0.1)
            for library, parameter in ((optim, dtrain.nn.Parameter(dtrain.ones(2))), (torch.optim, torch.nn.Parameter(torch.ones(2))))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = [(ours, build(lr_scheduler, ours)), (theirs, build(torch.optim.lr_scheduler, theirs))]
            np.testing.assert_allclose(*follow(pair), rtol=1e-11)


@pytest.mark.parametrize(
    "options",
    [dict(patience=1), dict(mode="max", patience=0, threshold=0.1, threshold_mode="abs", cooldown=2), dict(patience=0, min_lr=[0.05, 0.01])],
)
def test_reduce_on_plateau(options):
    pair = schedule_pair("ReduceLROnPlateau", lambda s: options)
    for metric in [1.0, 0.9, 0.95, 0.92, 0.89999, 1.2, 1.3, 1.25, 0.5, 0.6, 0.7, 0.8]:
        for _, s in pair:
            s.step(metric)
        np.testing.assert_allclose(*[s.get_last_lr() for _, s in pair], rtol=1e-12)


@pytest.mark.parametrize("name, options", SCHEDULES)
def test_schedule_state_continues(name, options):
    """A saved schedule goes on as if never stopped, and its dict has what PyTorch's has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = schedule_pair(name, options)
        follow(pair, 7)
        assert set(pair[1][1].state_dict()) - set(pair[0][1].state_dict()) <= {"_get_lr_called_within_step"}
        again, _ = schedule_pair(name, options)
        again[0].load_state_dict(pair[0][0].state_dict())
        again[1].load_state_dict(pair[0][1].state_dict())
        np.testing.assert_allclose(*follow([again, pair[1]], 10), rtol=1e-11)
