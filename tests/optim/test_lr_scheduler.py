"""Schedules: closed forms, protocol, refusals. Their sequences are compared with PyTorch's in tests/parity."""

import math
import warnings

import numpy as np
import pytest

import dtrain
from dtrain import nn, optim
from dtrain.errors import ArgumentError
from dtrain.optim import lr_scheduler as schedules


def optimizer(*rates, **options):
    return optim.SGD([dict(params=[nn.Parameter(dtrain.ones(1))], lr=lr) for lr in rates or (1.0,)], **options)


def rates(schedule, steps):
    out = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        schedule.optimizer.step()
        schedule.step()
        out.append(schedule.optimizer.param_groups[0]["lr"])
    return out


@pytest.mark.parametrize(
    "make, formula",
    [
        (lambda o: schedules.LambdaLR(o, lambda e: 1 / (1 + e)), lambda e: 1 / (1 + e)),
        (lambda o: schedules.MultiplicativeLR(o, lambda e: 0.5), lambda e: 0.5**e),
        (lambda o: schedules.StepLR(o, 3, 0.5), lambda e: 0.5 ** (e // 3)),
        (lambda o: schedules.MultiStepLR(o, [2, 4], 0.5), lambda e: 0.5 ** ((e >= 2) + (e >= 4))),
        (lambda o: schedules.ConstantLR(o, 0.5, 4), lambda e: 0.5 if e < 4 else 1.0),
        (lambda o: schedules.LinearLR(o, 0.2, 1.0, 4), lambda e: 0.2 + 0.2 * min(e, 4)),
        (lambda o: schedules.ExponentialLR(o, 0.9), lambda e: 0.9**e),
        (lambda o: schedules.PolynomialLR(o, 5, 2.0), lambda e: (1 - min(e, 5) / 5) ** 2),
        (lambda o: schedules.CosineAnnealingLR(o, 5, 0.1), lambda e: 0.1 + 0.9 * (1 + math.cos(math.pi * e / 5)) / 2),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 4), lambda e: (1 + math.cos(math.pi * (e % 4) / 4)) / 2),
    ],
)
def test_closed_form(make, formula):
    np.testing.assert_allclose(rates(make(optimizer()), 12), [formula(e) for e in range(13)], rtol=1e-12, atol=1e-15)


def test_warm_up_then_cosine():
    o = optimizer()
    both = schedules.SequentialLR(o, [schedules.LinearLR(o, 0.25, total_iters=4), schedules.CosineAnnealingLR(o, 6)], [4])
    expected = [0.25 + 0.75 * e / 4 for e in range(4)] + [(1 + math.cos(math.pi * e / 6)) / 2 for e in range(7)]
    np.testing.assert_allclose(rates(both, 10), expected, atol=1e-15)


def test_one_cycle_ends_low_and_cycles_momentum():
    o = optimizer(momentum=0.9)
    seen = rates(schedules.OneCycleLR(o, 1.0, total_steps=10), 9)
    assert seen[0] == pytest.approx(1 / 25) and max(seen) == 1.0 == seen[2] and seen[-1] == pytest.approx(1 / 25 / 1e4)
    assert o.param_groups[0]["momentum"] == 0.95


def test_own_schedules_and_several_groups():
    class Halving(schedules._LRScheduler):
        def get_lr(self):
            return [base * 0.5**self.last_epoch for base in self.base_lrs]

    o = optimizer(1.0, 4.0)
    schedule = Halving(o)
    o.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 2.0] == [g["lr"] for g in o.param_groups]
    assert schedule.base_lrs == [1.0, 4.0] and schedule.last_epoch == 1 and schedule._step_count == 2


def test_saved_and_resumed():
    class Ramp:
        def __init__(self, slope):
            self.slope = slope

        def __call__(self, epoch):
            return 1 + self.slope * epoch

    make = lambda o, slope: schedules.LambdaLR(o, Ramp(slope))  # noqa: E731
    o = optimizer()
    a = make(o, 2.0)
    rates(a, 3)
    p = optimizer()
    b = make(p, 0.0)
    p.load_state_dict(o.state_dict())
    b.load_state_dict(a.state_dict())
    assert rates(a, 3) == rates(b, 3)
    resumed = schedules.StepLR(p, 2, last_epoch=3)
    assert resumed.last_epoch == 4


def plain(value):
    """Whether a checkpoint holds it: numbers, strings, None and containers of them."""
    if type(value) in (dict, list, tuple):
        return all(plain(v) for v in (value.values() if type(value) is dict else value))
    return value is None or type(value) in (int, float, bool, str)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.LambdaLR(o, lambda e: 0.5),
        lambda o: schedules.MultiStepLR(o, [1, 3]),
        lambda o: schedules.OneCycleLR(o, 0.1, 20),
        lambda o: schedules.ReduceLROnPlateau(o),
        lambda o: schedules.SequentialLR(o, [schedules.LinearLR(o), schedules.MultiStepLR(o, [2])], [3]),
    ],
)
def test_state_is_plain_data(make):
    o = optimizer(momentum=0.9)
    schedule, again = make(o), make(o)
    assert plain(schedule.state_dict())
    again.load_state_dict(schedule.state_dict())
    assert again.state_dict() == schedule.state_dict()


def test_plateau():
    o = optimizer(1.0, 0.01)
    schedule = schedules.ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1, min_lr=[0.0, 0.01])
    for metric in (1.0, 0.5, 0.5, dtrain.tensor(0.6)):
        schedule.step(metric)
    assert [g["lr"] for g in o.param_groups] == [0.5, 0.01] and schedule.in_cooldown
    again = schedules.ReduceLROnPlateau(optimizer(1.0, 0.01))
    again.load_state_dict(schedule.state_dict())
    assert again.best == 0.5 and again.patience == 1


def test_tensor_rates_keep_their_identity():
    lr = dtrain.tensor(1.0)
    o = optim.SGD([nn.Parameter(dtrain.ones(1))], lr=lr)
    schedule = schedules.ExponentialLR(o, 0.5)
    o.step()
    schedule.step()
    assert o.param_groups[0]["lr"] is lr and lr.item() == 0.5


def test_calls_out_of_order_are_named():
    o = optimizer()
    schedule = schedules.StepLR(o, 1)
    with pytest.warns(UserWarning, match="StepLR.step\\(\\) was called before the first optimizer.step"):
        schedule.step()
    with pytest.warns(UserWarning, match="get_last_lr"):
        schedule.get_lr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates(schedules.StepLR(optimizer(), 1), 2)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda o: schedules.StepLR("sgd", 1), TypeError),
        (lambda o: schedules.LambdaLR(o, [lambda e: 1.0, lambda e: 1.0]), ArgumentError),
        (lambda o: schedules.LambdaLR(o, 3), TypeError),
        (lambda o: schedules.StepLR(o, 0), ArgumentError),
        (lambda o: schedules.StepLR(o, 1, last_epoch=5), ArgumentError),
        (lambda o: schedules.ConstantLR(o, 1.5), ArgumentError),
        (lambda o: schedules.LinearLR(o, 0.0), ArgumentError),
        (lambda o: schedules.LinearLR(o, 0.1, 2.0), ArgumentError),
        (lambda o: schedules.CosineAnnealingLR(o, 0), ArgumentError),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 0), ArgumentError),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, 0), ArgumentError),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 2).step(-1), ArgumentError),
        (lambda o: schedules.OneCycleLR(o, 1.0), ArgumentError),
        (lambda o: schedules.OneCycleLR(o, 1.0, 0), ArgumentError),
        (lambda o: schedules.OneCycleLR(o, 1.0, 9, pct_start=2.0), ArgumentError),
        (lambda o: schedules.OneCycleLR(o, 1.0, 9, anneal_strategy="sine"), ArgumentError),
        (lambda o: rates(schedules.OneCycleLR(o, 1.0, 3), 4), ArgumentError),
        (lambda o: schedules.SequentialLR(o, [], []), ArgumentError),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1)], [3]), ArgumentError),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(optimizer(), 1)], []), ArgumentError),
        (lambda o: schedules.ChainedScheduler([]), ArgumentError),
        (lambda o: schedules.ChainedScheduler([schedules.ReduceLROnPlateau(o)]), ArgumentError),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), ArgumentError),
        (lambda o: schedules.ReduceLROnPlateau(o, mode="low"), ArgumentError),
        (lambda o: schedules.ReduceLROnPlateau(o, threshold_mode="log"), ArgumentError),
        (lambda o: schedules.ReduceLROnPlateau(o, min_lr=[0.0, 0.0]), ArgumentError),
        (lambda o: schedules.LRScheduler(o), TypeError),
    ],
)
def test_misuse_is_explained(make, error):
    with pytest.raises(error):
        make(optimizer())
