"""The CPU generator gives PyTorch's numbers for the same seed, and is at the same place afterwards, byte for byte."""

import numpy as np
import pytest
import torch

from dtrain.backend import dtypes, random

SIZES = [*range(41), 1000, 100003]
SEEDS = [0, 1, 42, 2**40 + 7, -5]
FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]


def as_torch(d):
    return getattr(torch, d.name)


def pair(seed):
    return random.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)


def values(x):
    return x.to(torch.float64).numpy() if isinstance(x, torch.Tensor) else x.astype(np.float64)


def check(ours, theirs, generators=None, ulps=0.0):
    """Equal values (or within ``ulps`` last places and a hair of zero), and generators at the same place."""
    assert ours.shape == tuple(theirs.shape) and ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    if ulps:
        eps = 2.0**-23 if ours.dtype == np.float32 else 2.0**-52
        np.testing.assert_allclose(values(ours), values(theirs), rtol=ulps * eps, atol=5 * eps)
    else:
        np.testing.assert_array_equal(values(ours), values(theirs))
    if generators:
        g, t = generators
        assert (g.get_state()[:5056] == t.get_state().numpy()).all()


@pytest.mark.parametrize("d", FLOATS, ids=repr)
@pytest.mark.parametrize("low, high", [(0, 1), (-1.3, 2.7), (0.1, 0.3), (1, 1 + 2**-20), (2, 2)])
def test_uniform(d, low, high):
    for seed in SEEDS:
        g, t = pair(seed)
        for n in SIZES:
            check(random.uniform(n, d, low, high, g), torch.empty(n, dtype=as_torch(d)).uniform_(low, high, generator=t), (g, t))


@pytest.mark.parametrize("d", FLOATS, ids=repr)
@pytest.mark.parametrize("mean, std", [(0, 1), (0, 0.02), (0.3, 1.7)])
def test_normal(d, mean, std):
    """One generator through all sizes, so that the normal kept from an odd call is used by the next."""
    for seed in SEEDS:
        g, t = pair(seed)
        for n in SIZES:
            ours, theirs = random.normal(n, d, mean, std, g), torch.empty(n, dtype=as_torch(d)).normal_(mean, std, generator=t)
            if d.is_half:
                np.testing.assert_allclose(values(ours), values(theirs), rtol=dtypes.finfo(d).eps, atol=1e-6)
                assert (values(ours) != values(theirs)).sum() <= 0.01 * n
            else:
                check(ours, theirs, ulps=4)
            assert (g.get_state()[:5024] == t.get_state().numpy()[:5024]).all()


@pytest.mark.parametrize("n", [1, 2, 15])
@pytest.mark.parametrize("d", FLOATS, ids=repr)
def test_few_normals_are_exact(n, d):
    g, t = pair(3)
    for _ in range(3):
        check(random.normal(n, d, 0.3, 1.7, g), torch.empty(n, dtype=as_torch(d)).normal_(0.3, 1.7, generator=t), (g, t))


def test_normals_of_float64_are_exact():
    g, t = pair(3)
    check(random.normal((100, 3), dtypes.float64, 0, 1, g), torch.randn(100, 3, dtype=torch.float64, generator=t), (g, t))


@pytest.mark.parametrize("low, high", [(0, 10), (-5, 7), (0, 2**28 - 1), (0, 2**28), (0, 2**32), (-(2**40), 2**50), (-(2**63), 2**63 - 1)])
def test_randint(low, high):
    for seed in SEEDS:
        g, t = pair(seed)
        for n in SIZES:
            check(random.randint(low, high, n, dtypes.int64, g), torch.randint(low, high, (n,), generator=t), (g, t))


@pytest.mark.parametrize("d", [d for d in dtypes.ALL if not d.is_complex], ids=repr)
def test_integers_of_every_dtype(d):
    g, t = pair(5)
    check(random.randint(0, 2, (3, 50), d, g), torch.randint(0, 2, (3, 50), dtype=as_torch(d), generator=t), (g, t))
    check(random.random_integers(500, d, g), torch.empty(500, dtype=as_torch(d)).random_(generator=t), (g, t))


def test_all_of_int64():
    g, t = pair(5)
    check(random.randint(-(2**63), 2**63, 100, dtypes.int64, g), torch.empty(100, dtype=torch.int64).random_(-(2**63), None, generator=t), (g, t))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 40, 1000, 100003])
def test_randperm(n):
    g, t = pair(6)
    for d in (dtypes.int64, dtypes.float64):
        check(random.randperm(n, d, g), torch.randperm(n, dtype=as_torch(d), generator=t), (g, t))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.123456, 1.0])
def test_bernoulli(p):
    g, t = pair(7)
    for n in SIZES:
        check(random.bernoulli(p, g, n), torch.empty(n, dtype=torch.bool).bernoulli_(p, generator=t), (g, t))
        for d in FLOATS:
            ours, theirs = random.bernoulli(np.full(n, p, d.np), g), torch.bernoulli(torch.full((n,), p, dtype=as_torch(d)), generator=t)
            check(ours, theirs.bool(), (g, t))


@pytest.mark.parametrize("rate", [1.0, 2.5])
def test_exponential(rate):
    g, t = pair(8)
    for n in SIZES:
        check(random.exponential(n, dtypes.float32, rate, g), torch.empty(n).exponential_(rate, generator=t), (g, t))
        check(random.exponential(n, dtypes.float64, rate, g), torch.empty(n, dtype=torch.float64).exponential_(rate, generator=t), (g, t), ulps=4)


@pytest.mark.parametrize("shape", [(10,), (4, 10)])
@pytest.mark.parametrize("d", [dtypes.float32, dtypes.float64], ids=repr)
@pytest.mark.parametrize("num_samples, replacement", [(1, False), (4, False), (10, False), (1, True), (50, True)])
def test_multinomial(shape, d, num_samples, replacement):
    g, t = pair(9)
    weights = torch.rand(shape, dtype=as_torch(d), generator=torch.Generator().manual_seed(1))
    ours = random.multinomial(weights.numpy(), num_samples, replacement, g)
    check(ours, torch.multinomial(weights, num_samples, replacement, generator=t), (g, t))


def test_complex():
    g, t = pair(10)
    assert (random.uniform((3, 4), dtypes.complex64, generator=g) == torch.rand(3, 4, dtype=torch.complex64, generator=t).numpy()).all()
    ours, theirs = random.normal(3, dtypes.complex128, 1, 2, g), torch.empty(3, dtype=torch.complex128).normal_(1, 2, generator=t)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-14)


def test_complex_state():
    g, t = pair(10)
    random.normal(9, dtypes.complex64, 0, 1, g), torch.randn(9, dtype=torch.complex64, generator=t)
    check(random.uniform(3, dtypes.float32, generator=g), torch.rand(3, generator=t), (g, t))


def test_interleaved_calls_and_exchanged_states():
    g, t = pair(11)
    for n in (3, 16, 5, 700, 1, 33):
        random.normal(n, dtypes.float32, 0, 1, g), torch.randn(n, generator=t)
        check(random.uniform(n, dtypes.float64, generator=g), torch.rand(n, dtype=torch.float64, generator=t), (g, t))
        check(random.randperm(n, dtypes.int64, g), torch.randperm(n, generator=t), (g, t))
        g.set_state(t.get_state().numpy())
        t.set_state(torch.from_numpy(g.get_state()[:5056].copy()))
        check(random.normal(1, dtypes.float64, 0, 1, g), torch.randn(1, dtype=torch.float64, generator=t), (g, t))


def test_seeds():
    g, t = pair(-1)
    assert g.initial_seed() == t.initial_seed() == 2**64 - 1
    assert random.Generator().initial_seed() == torch.Generator().initial_seed()
    check(random.uniform(3, dtypes.float32, generator=random.Generator()), torch.rand(3, generator=torch.Generator()))
