"""Samplers and datasets: contents, lengths, combinations and errors (orders against PyTorch are in the parity tests)."""

import pickle

import numpy as np
import pytest

from dtrain.backend.random import Generator, manual_seed
from dtrain.backend.state import RankState, use_rank
from dtrain.data import (BatchSampler, ChainDataset, ConcatDataset, Dataset, DistributedSampler, IterableDataset, RandomSampler, Sampler,
                         SequentialSampler, StackDataset, Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler, random_split)
from dtrain.errors import ArgumentError, DistributedError, IndexRangeError


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return i * i

    def __len__(self):
        return self.n


class Stream(IterableDataset):
    def __init__(self, *values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)


def test_combining_datasets():
    joined = Squares(3) + Squares(4)
    assert isinstance(joined, ConcatDataset) and [joined[i] for i in range(7)] == [0, 1, 4, 0, 1, 4, 9]
    assert joined[-1] == 9 and joined[-7] == 0 and len(joined) == 7
    for bad in (7, -8):
        with pytest.raises(IndexRangeError, match=f"index {bad}"):
            joined[bad]
    chained = Stream(1, 2) + Stream(3)
    assert isinstance(chained, ChainDataset) and list(chained) == [1, 2, 3] and len(chained) == 3
    part = Subset(Squares(9), [8, 2])
    assert part[0] == 64 and part.__getitems__([1, 0]) == [4, 64] and len(part) == 2
    pairs = TensorDataset(np.arange(3), np.arange(6).reshape(3, 2))
    assert pairs[1][0] == 1 and pairs[1][1].tolist() == [2, 3] and len(pairs) == 3
    assert StackDataset(Squares(3), part.dataset.__class__(3))[2] == (4, 4)
    named = StackDataset(a=Squares(3), b=Squares(3))
    assert named[2] == {"a": 4, "b": 4} and named.__getitems__([0, 1]) == [{"a": 0, "b": 0}, {"a": 1, "b": 1}]


@pytest.mark.parametrize("make, message", [
    (lambda: TensorDataset(np.ones(2), np.ones(3)), r"\[2, 3\]"),
    (lambda: StackDataset(Squares(2), Squares(3)), r"\[2, 3\]"),
    (lambda: StackDataset(), "at least one"),
    (lambda: ConcatDataset([]), "at least one"),
    (lambda: ConcatDataset([Stream(1)]), "ChainDataset"),
    (lambda: list(ChainDataset([Squares(1)])), "a Squares"),
    (lambda: random_split(Squares(5), [2, 2]), "sum to 4, but the dataset has 5"),
    (lambda: random_split(Squares(5), [1.5, -0.5]), "1.5 at position 0"),
    (lambda: RandomSampler(Squares(0)), "the dataset is empty"),
    (lambda: RandomSampler(Squares(2), num_samples=0), "got 0"),
    (lambda: BatchSampler([1], True, False), "got True"),
    (lambda: BatchSampler([1], 2, 1), "drop_last"),
    (lambda: WeightedRandomSampler([1.0], 0), "num_samples"),
    (lambda: WeightedRandomSampler([[1.0]], 1), r"shape \(1, 1\)"),
    (lambda: list(WeightedRandomSampler([1.0, 2.0], 3, False)), "cannot draw 3"),
    (lambda: DistributedSampler(Squares(3), 2, 2), "rank 2 is outside a world of 2"),
])
def test_bad_input(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_subclasses_must_define():
    for bad, method in [(Dataset(), "__getitem__"), (IterableDataset(), "__iter__"), (Sampler(), "__iter__")]:
        with pytest.raises(TypeError, match=method):
            bad[0] if method == "__getitem__" else iter(bad)


def test_random_split():
    parts = random_split(Squares(10), [7, 3], generator=Generator().manual_seed(1))
    assert sorted(parts[0].indices + parts[1].indices) == list(range(10)) and [len(p) for p in parts] == [7, 3]
    assert [len(p) for p in random_split(Squares(11), [0.25, 0.25, 0.5])] == [3, 3, 5]
    with pytest.warns(UserWarning, match="split 1 is empty"):
        random_split(Squares(1), [0.5, 0.5])


def test_orders():
    assert list(SequentialSampler(Squares(4))) == [0, 1, 2, 3]
    assert sorted(RandomSampler(Squares(9))) == list(range(9))
    twice = list(RandomSampler(Squares(4), num_samples=10))
    assert sorted(twice[:4]) == sorted(twice[4:8]) == [0, 1, 2, 3] and len(twice) == 10 == len(RandomSampler(Squares(4), num_samples=10))
    drawn = list(RandomSampler(Squares(3), replacement=True, num_samples=70))
    assert len(drawn) == 70 and set(drawn) == {0, 1, 2}
    assert sorted(SubsetRandomSampler("xyz")) == ["x", "y", "z"]
    counts = np.bincount(list(WeightedRandomSampler([1, 0, 3], 4000)), minlength=3)
    assert counts[1] == 0 and abs(counts[2] - 3000) < 150
    manual_seed(3)
    first = list(RandomSampler(Squares(50)))
    assert first != list(RandomSampler(Squares(50)))
    manual_seed(3)
    assert first == list(RandomSampler(Squares(50)))


@pytest.mark.parametrize("n, size, drop", [(10, 3, False), (10, 3, True), (9, 3, True), (2, 5, True), (2, 5, False), (0, 2, False)])
def test_batches(n, size, drop):
    batches = list(BatchSampler(SequentialSampler(range(n)), size, drop))
    whole = list(range(n - n % size if drop else n))
    assert batches == [whole[i: i + size] for i in range(0, len(whole), size)]
    assert len(BatchSampler(range(n), size, drop)) == len(batches)


@pytest.mark.parametrize("n, world", [(12, 3), (13, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize("drop", [False, True])
def test_replicas_share_the_samples_out(n, world, drop):
    shares = [list(DistributedSampler(range(n), world, r, drop_last=drop)) for r in range(world)]
    assert len({len(s) for s in shares}) == 1 == len({len(DistributedSampler(range(n), world, r, drop_last=drop)) for r in range(world)})
    assert len(shares[0]) == len(DistributedSampler(range(n), world, 0, drop_last=drop))
    every = sorted(i for s in shares for i in s)
    if drop:
        assert len(set(every)) == len(every) == n // world * world
    else:
        assert set(every) == set(range(n))


def test_epochs_differ_and_the_group_gives_the_numbers():
    sampler = DistributedSampler(range(40), 2, 1)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    rank = RankState()
    with use_rank(rank):
        with pytest.raises(DistributedError, match="init_process_group"):
            DistributedSampler(range(4))
        rank.group = type("Group", (), {"rank": 1, "size": 2})
        assert list(DistributedSampler(range(5), shuffle=False)) == [1, 3, 0]


def test_pickling():
    generator = Generator().manual_seed(4)
    assert list(pickle.loads(pickle.dumps(RandomSampler(range(9), generator=generator)))) == list(RandomSampler(range(9), generator=generator))
