"""The order of training data: a pure function of (seed, epoch, step), whatever the number of ranks."""

import collections
import itertools
import math
import pickle

import numpy as np
import pytest

from dtrain.data import TokenDataset, TokenLoader, write_shards
from dtrain.data.permutation import permute
from dtrain.errors import ArgumentError, DataError, IndexRangeError

T, B = 5, 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "corpus"
    write_shards([np.arange(1000)], path, shard_tokens=128, dtype="uint16")
    return TokenDataset(path)


def make(corpus, rank=0, world=1, **kw):
    return TokenLoader(corpus, B, T, rank, world, seed=3, tensors=False, **kw)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097])
def test_permute_is_a_permutation(n):
    for key in [(0, 0), (0, 1), (1, 0), (2 ** 70, 5), (-1, 5)]:
        assert sorted(permute(np.arange(n), n, *key)) == list(range(n))
        assert [int(permute(np.array(i), n, *key)) for i in range(min(n, 20))] == permute(np.arange(n), n, *key)[:20].tolist()


def test_permute_looks_random():
    """Positions, neighbours and keys are uncorrelated: each figure is within five standard deviations of chance."""
    n, keys = 1000, 200
    values = np.stack([permute(np.arange(n), n, seed, 0) for seed in range(keys)]) / (n - 1) - 0.5
    sigma = np.sqrt(1 / 12 / keys)
    assert np.abs(values.mean(0)).max() < 5 * sigma                                  # no position prefers a value
    assert abs(np.mean(values[:, 1:] * values[:, :-1])) * 12 < 5 / np.sqrt(n * keys)  # neighbours
    assert abs(np.mean(values[1:] * values[:-1])) * 12 < 5 / np.sqrt(n * keys)        # consecutive seeds
    fixed = sum((permute(np.arange(n), n, 0, epoch) == np.arange(n)).sum() for epoch in range(keys))
    assert abs(fixed - keys) < 5 * np.sqrt(keys)                                     # one fixed point each, on average


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permute_of_few_reaches_every_order_alike(n):
    """The chi-squared statistic of the n! orders, per degree of freedom, is near 1."""
    orders, draws = math.factorial(n), 20 * math.factorial(n)
    seen = collections.Counter(tuple(permute(np.arange(n), n, seed)) for seed in range(draws))
    assert len(seen) == orders
    assert sum((count - 20) ** 2 / 20 for count in seen.values()) / (orders - 1) < 1 + 5 * math.sqrt(2 / (orders - 1))


def test_the_order_never_changes():
    """Positions in checkpoints mean the same in every version."""
    assert permute(np.arange(6), 1000, 1, 2).tolist() == [722, 843, 129, 203, 509, 737]


def test_permute_refuses_what_is_outside():
    with pytest.raises(IndexRangeError, match=r"\[0, 10\)"):
        permute(np.array([10]), 10)
    with pytest.raises(ArgumentError):
        permute(np.array([0]), 0)


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_any_world_size_sees_the_same_batches(corpus, world):
    alone = list(make(corpus))
    ranks = [list(make(corpus, r, world)) for r in range(world)]
    for step, (x, y) in enumerate(alone):
        assert np.array_equal(np.concatenate([ranks[r][step][0] for r in range(world)]), x)
        assert np.array_equal(np.concatenate([ranks[r][step][1] for r in range(world)]), y)


def test_an_epoch_visits_every_window_once(corpus):
    loader = make(corpus)
    seen = np.concatenate([x[:, 0] for x, _ in loader])
    assert len(loader) == 199 // B and len(seen) == len(set(seen)) == len(loader) * B
    assert set(seen) <= set(range(0, 995, T))
    assert loader.epoch == 1 and not np.array_equal(next(iter(loader))[0], next(iter(make(corpus)))[0])


def test_targets_are_one_token_later(corpus):
    for x, y in make(corpus):
        assert x.shape == y.shape == (B, T) and x.dtype == y.dtype == np.int64
        assert np.array_equal(y, x + 1) and x.flags.c_contiguous and y.flags.c_contiguous


def test_without_shuffling_the_text_runs_on(corpus):
    x, _ = next(iter(make(corpus, shuffle=False)))
    assert x.ravel().tolist() == list(range(B * T))


def test_micro_batches_are_the_rows_in_order(corpus):
    whole, parts = make(corpus, 1, 2), make(corpus, 1, 2, micro_batches=3)
    for (x, y), micro in zip(whole, parts):
        assert [p[0].shape for p in micro] == [(2, T)] * 3
        assert np.array_equal(np.concatenate([p[0] for p in micro]), x)
        assert np.array_equal(np.concatenate([p[1] for p in micro]), y)


def test_resume_at_every_step_on_another_world(corpus):
    steps = 2 * (199 // B) + 3
    straight = list(itertools.islice(make(corpus).forever(), steps))
    for stop in range(steps):
        first = make(corpus)
        for _ in itertools.islice(first.forever(), stop):
            pass
        state = pickle.loads(pickle.dumps(first.state_dict()))
        second = make(corpus, 2, 3)
        second.load_state_dict(state)
        x, y = next(second.forever())
        assert np.array_equal(x, straight[stop][0][8:]) and np.array_equal(y, straight[stop][1][8:])


def test_resume_replays_nothing(corpus, monkeypatch):
    loader, reads = make(corpus), []
    loader.load_state_dict({**loader.state_dict(), "epoch": 10 ** 9, "step": 15})
    monkeypatch.setattr(corpus, "windows", lambda starts, n: reads.append(len(starts)) or np.zeros((len(starts), n), np.int64))
    next(iter(loader))
    assert reads == [B]


@pytest.mark.parametrize("batch, world, micro, message", [
    (4, 8, None, "8 ranks are more than the global batch of 4 rows; use at most 4 ranks"),
    (12, 5, None, "12 rows does not split evenly over 5 ranks; use 10 or 15 rows"),
    (12, 2, 4, "12 rows does not split evenly over 2 ranks x 4 micro-batches; use 8 or 16 rows"),
    (3, 2, 2, "use 4 rows"),
    (0, 1, None, "at least 1"),
])
def test_a_batch_that_does_not_split(corpus, batch, world, micro, message):
    with pytest.raises(ArgumentError, match=message):
        TokenLoader(corpus, batch, T, 0, world, micro_batches=micro)


def test_other_bad_input(corpus):
    with pytest.raises(ArgumentError, match="rank 2 is outside a world of 2"):
        make(corpus, 2, 2)
    with pytest.raises(DataError, match="1000 tokens hold 9 windows of 100.1 tokens, fewer than the global batch of 12"):
        TokenLoader(corpus, 12, 100)
    with pytest.raises(IndexRangeError, match="step 16 is outside"):
        make(corpus).batch(0, 16)
    with pytest.raises(ArgumentError, match="seed was 4, is 3"):
        make(corpus).load_state_dict({**make(corpus).state_dict(), "seed": 4})
