"""The public random functions give PyTorch's tensors for the same seed, and leave the generator where PyTorch's is."""

import numpy as np
import pytest
import torch

import dtrain

CALLS = {
    "rand": lambda m: m.rand(5, 7), "randn": lambda m: m.randn(5, 7), "rand half": lambda m: m.rand(50, dtype=m.bfloat16),
    "randint": lambda m: m.randint(3, 9, (50,)), "randperm": lambda m: m.randperm(50),
    "normal size": lambda m: m.normal(2.0, 3.0, (5, 7)), "normal tensors": lambda m: m.normal(m.ones(50) * 2, m.ones(50) * 3),
    "normal_": lambda m: m.empty(50).normal_(2, 3), "uniform_": lambda m: m.empty(50).uniform_(-0.1, 0.1),
    "bernoulli": lambda m: m.bernoulli(m.ones(50) * 0.3), "bernoulli_": lambda m: m.empty(50).bernoulli_(0.3),
    "bernoulli_ tensor": lambda m: m.empty(50).bernoulli_(m.ones(50) * 0.3), "multinomial": lambda m: m.multinomial(m.rand(4, 9), 3),
    "bernoulli_ 0-dim tensor": lambda m: m.empty(50).bernoulli_(m.tensor(0.3)), "randint_like": lambda m: m.randint_like(m.ones(50), 3, 9),
    "random_ of floats": lambda m: m.empty(50).random_(), "random_ of int64": lambda m: m.empty(50, dtype=m.int64).random_(),
    "random_ of int32": lambda m: m.empty(50, dtype=m.int32).random_(), "random_ up to": lambda m: m.empty(50).random_(9),
    "random_ from, to": lambda m: m.empty(50, dtype=m.uint8).random_(3, 200), "random_ of bools": lambda m: m.empty(50, dtype=m.bool).random_(),
}


@pytest.mark.parametrize("name", CALLS)
def test_same_numbers(name):
    dtrain.manual_seed(4)
    torch.manual_seed(4)
    ours, theirs = CALLS[name](dtrain), CALLS[name](torch)
    assert tuple(ours.shape) == tuple(theirs.shape) and str(ours.dtype).removeprefix("dtrain.") == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.to(dtrain.float64).numpy(), theirs.double().numpy(), rtol=1e-6, atol=2e-6)
    assert dtrain.rand(1).item() == torch.rand(1).item()
