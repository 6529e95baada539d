"""The law every operation keeps: its gradients are those of finite differences along a random direction, to second order."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

import dtrain
from dtrain.autograd import engine
from tests.util import normal, to_numpy

__all__ = ["check_grad", "integers", "normal", "positive", "to_numpy"]


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers between 0.5 and 2.5, float64."""
    return np.random.default_rng(seed).random(shape) * 2 + 0.5


def integers(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Integers of [0, high), int64."""
    return np.random.default_rng(seed).integers(0, high, shape)


def check_grad(fn: Callable, *operands: Any, device: str = "cpu", order: int = 2, tolerance: float = 1e-6, step: float = 1e-5) -> None:
    """Compare the gradients of ``fn`` at float64 ``operands`` with central differences; ``order`` 2 differentiates the gradient too.

    Operands are NumPy arrays: the float64 ones require a gradient, others (and None, numbers) are passed on.
    """
    rng = np.random.default_rng(1)
    moving = [i for i, x in enumerate(operands) if isinstance(x, np.ndarray) and x.dtype == np.float64]
    point = [np.array(operands[i]) for i in moving]
    probe = _call(fn, operands, moving, point, device)
    seeds = [rng.standard_normal(y.shape) for y in probe]
    _compare(lambda ps: _value_and_grads(fn, operands, moving, ps, seeds, device), point, rng, tolerance, step, "first order")
    if order == 2:
        u = [rng.standard_normal(p.shape) for p in point]
        both = [*point, *seeds]
        _compare(lambda ps: _slope_and_grads(fn, operands, moving, ps, u, device), both, rng, tolerance * 10, step, "second order")


def _tensors(arrays: list, device: str) -> list:
    return [dtrain.tensor(a, device=device).requires_grad_() for a in arrays]


def _call(fn: Callable, operands: tuple, moving: list, point: list, device: str) -> list:
    """The floating outputs of ``fn``; ``point`` holds arrays or tensors for the operands that move."""
    args = [dtrain.tensor(x, device=device) if isinstance(x, np.ndarray) else x for x in operands]
    for i, p in zip(moving, point):
        args[i] = dtrain.tensor(p, device=device) if isinstance(p, np.ndarray) else p
    out = fn(*args)
    return [y for y in (out if isinstance(out, tuple) else (out,)) if y.is_floating_point()]


def _value_and_grads(fn: Callable, operands: tuple, moving: list, point: list, seeds: list, device: str) -> tuple:
    xs = _tensors(point, device)
    ys = _call(fn, operands, moving, xs, device)
    grads = engine.grad(ys, xs, [dtrain.tensor(s, device=device) for s in seeds], materialize_grads=True, allow_unused=True)
    return sum((to_numpy(y) * s).sum() for y, s in zip(ys, seeds)), [to_numpy(g) for g in grads]


def _slope_and_grads(fn: Callable, operands: tuple, moving: list, point: list, u: list, device: str) -> tuple:
    """The derivative along ``u`` of the outputs weighted by the seeds (the last of ``point``), and its gradients."""
    tensors = _tensors(point, device)
    xs, seeds = tensors[: len(moving)], tensors[len(moving) :]
    ys = _call(fn, operands, moving, xs, device)
    raw = engine.grad(ys, xs, [s.detach() for s in seeds], retain_graph=True, allow_unused=True, materialize_grads=True)
    grads = engine.grad(ys, xs, seeds, create_graph=True, allow_unused=True, materialize_grads=True)
    for a, b in zip(raw, grads):
        assert np.allclose(to_numpy(a), to_numpy(b), 1e-8, 1e-8), f"the gradient differs under create_graph\n{a}\n{b}"
    slope = sum((g * dtrain.tensor(d, device=device)).sum() for g, d in zip(grads, u))
    second = engine.grad(slope, tensors, allow_unused=True, materialize_grads=True) if slope.requires_grad else [s * 0 for s in tensors]
    return float(to_numpy(slope)), [to_numpy(g) for g in second]


def _compare(f: Callable, point: list, rng: Any, tolerance: float, step: float, what: str) -> None:
    """``f`` gives a value and its gradients at ``point``: compare them along a random direction."""
    _, grads = f(point)
    for p, g in zip(point, grads):
        assert g.shape == p.shape, f"{what}: a gradient of shape {g.shape} for an operand of shape {p.shape}"
    direction = [rng.standard_normal(p.shape) for p in point]
    high, _ = f([p + step * d for p, d in zip(point, direction)])
    low, _ = f([p - step * d for p, d in zip(point, direction)])
    numerical, ours = (high - low) / (2 * step), sum((g * d).sum() for g, d in zip(grads, direction))
    assert abs(numerical - ours) <= tolerance * (1 + abs(numerical)), f"{what}: {ours:.10g} along a direction, differences give {numerical:.10g}"
