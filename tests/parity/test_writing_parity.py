"""Random indices, and random programs of views and in-place writes, against PyTorch: values and gradients."""

import random

import numpy as np
import pytest
import torch

import dtrain
from tests.ops import programs

pytestmark = pytest.mark.parity
SHAPES = [(4,), (3, 4), (2, 3, 4), (4, 1, 3), (2, 2, 2, 3)]


def random_key(rng: random.Random, shape: tuple) -> tuple:
    """Integers, slices, None, ... and up to three index arrays (which broadcast), or one mask, that fit ``shape``."""
    key, dim, common = [], 0, None
    while dim < len(shape):
        n, choice = shape[dim], rng.random()
        if choice < 0.12:
            key.append(None)
        elif choice < 0.3:
            key.append(rng.randrange(-n, n))
            dim += 1
        elif choice < 0.55:
            key.append(slice(rng.choice([None, 0, 1, -1, -2, 2]), rng.choice([None, 1, 2, 3, -1, 99]), rng.choice([None, 1, 2])))
            dim += 1
        elif choice < 0.62 and Ellipsis not in [k for k in key if not isinstance(k, np.ndarray)]:
            key.append(Ellipsis)
            dim += rng.randrange(len(shape) - dim + 1)
        elif choice < 0.85:
            common = common or rng.choice([(2,), (3,), (2, 3), (1,), (2, 1)])
            size = common if rng.random() < 0.7 else (1,)
            key.append(np.array([rng.randrange(-n, n) for _ in range(int(np.prod(size)))], np.int64).reshape(size))
            dim += 1
        elif choice < 0.92 and common is None:
            span = min(rng.choice([1, 2]), len(shape) - dim)
            mask = np.array([rng.random() < 0.5 for _ in range(int(np.prod(shape[dim : dim + span])))]).reshape(shape[dim : dim + span])
            key.append(mask)
            common, dim = (int(mask.sum()),), dim + span
        else:
            break
    return tuple(key)


def of(m, key):
    return tuple(m.tensor(k) if isinstance(k, np.ndarray) else k for k in key)


def weighted(m, t):
    return (t * t * m.tensor(np.arange(1, t.numel() + 1.0)).reshape(tuple(t.shape))).sum()


def read(m, x, key, rng):
    t = m.tensor(x).requires_grad_()
    y = t[of(m, key)]
    weighted(m, y).backward()
    return y.detach(), t.grad


def write(m, x, key, rng):
    t = m.tensor(x).requires_grad_()
    base = t * 1.0
    shape = tuple(base[of(m, key)].shape)
    values = np.asarray(np.random.default_rng(1).standard_normal(rng.choice([(), shape, shape[-1:], (1, *shape), (1,) * len(shape)])))
    v = m.tensor(values).requires_grad_()
    base[of(m, key)] = v * 2
    weighted(m, base).backward()
    return base.detach(), t.grad, v.grad


@pytest.mark.parametrize("operation", [read, write])
def test_random_indices(operation):
    compared = 0
    for seed in range(400):
        rng = random.Random(seed)
        shape = rng.choice(SHAPES)
        key, x = random_key(rng, shape), np.random.default_rng(seed).standard_normal(shape)
        try:
            theirs = operation(torch, x, key, random.Random(seed))
        except (IndexError, RuntimeError):
            continue
        ours = operation(dtrain, x, key, random.Random(seed))
        compared += 1
        for a, b in zip(ours, theirs):
            assert tuple(a.shape) == tuple(b.shape), (seed, shape, key)
            np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-10, 1e-10, err_msg=f"{seed} {shape} {key}")
    assert compared > 250


def outcome(m, seed, order):
    leaves = [m.tensor(a).requires_grad_() for a in programs.operands()]
    live, steps = programs.run(m, seed, *leaves)
    values = [t.detach().numpy().copy() for t in live]
    grads = m.autograd.grad(programs.loss(m, live), leaves, create_graph=order == 2, allow_unused=True)
    if order == 2:
        total = sum((g * g).sum() for g in grads if g is not None)
        grads = m.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else grads
    return values, [np.zeros(leaf.shape) if g is None else g.detach().numpy() for g, leaf in zip(grads, leaves)], steps


@pytest.mark.parametrize("order", [1, 2])
def test_random_programs(order):
    """PyTorch refuses more programs than we do; where it gives a gradient, ours is the same."""
    compared = 0
    for seed in range(400):
        try:
            values, grads, steps = outcome(torch, seed, order)
        except RuntimeError:
            continue
        try:
            ours = outcome(dtrain, seed, order)
        except RuntimeError as error:
            assert "share memory" in str(error) or "expanded tensor" in str(error), (seed, steps)
            continue
        compared += 1
        for a, b in zip((*ours[0], *ours[1]), (*values, *grads)):
            np.testing.assert_allclose(a, b, 1e-7, 1e-9, err_msg=f"{seed} {steps}")
    assert compared > 200
