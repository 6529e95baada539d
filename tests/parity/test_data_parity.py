"""Data loading against PyTorch: the same orders, batches, seeds and draws from the default generator."""

import random

import numpy as np
import pytest
import torch
import torch.utils.data as theirs

import dtrain
import dtrain.data as ours
from dtrain.data.worker import seed_everything

pytestmark = pytest.mark.parity
SIDES = [(dtrain, ours), (torch, theirs)]


def both(run):
    """``run(library, data module)`` for PyTorch and for dtrain, seeded alike, and the default generator's next number after it."""
    results = []
    for library, data in SIDES:
        library.manual_seed(11)
        results.append((run(library, data), int(library.randint(0, 2 ** 60, (1,))[0])))
    return results


def plain(x):
    if hasattr(x, "numpy"):
        return (str(x.dtype).split(".")[-1], x.tolist())
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x).__name__, [plain(v) for v in x]
    return x


SAMPLERS = [
    lambda m, d: d.SequentialSampler(range(7)),
    lambda m, d: d.RandomSampler(range(97)),
    lambda m, d: d.RandomSampler(range(5), num_samples=23),
    lambda m, d: d.RandomSampler(range(5), num_samples=10),
    lambda m, d: d.RandomSampler(range(33), replacement=True),
    lambda m, d: d.RandomSampler(range(33), replacement=True, num_samples=64),
    lambda m, d: d.RandomSampler(range(33), generator=m.Generator().manual_seed(5)),
    lambda m, d: d.SubsetRandomSampler([3, 1, 4, 1, 5, 9]),
    lambda m, d: d.SubsetRandomSampler([3, 1, 4], generator=m.Generator().manual_seed(2 ** 40)),
    lambda m, d: d.WeightedRandomSampler([0.1, 0.0, 3, 1e-3, 0.5], 200),
    lambda m, d: d.WeightedRandomSampler([1.0, 2.0, 3.0], 40, generator=m.Generator().manual_seed(1)),
    lambda m, d: d.BatchSampler(d.RandomSampler(range(10)), 3, False),
    lambda m, d: d.BatchSampler(d.RandomSampler(range(10)), 3, True),
]


@pytest.mark.parametrize("make", SAMPLERS, ids=range(len(SAMPLERS)))
def test_samplers(make):
    def run(library, data):
        sampler = make(library, data)
        return list(sampler), list(sampler), len(sampler)

    mine, his = both(run)
    assert mine == his


@pytest.mark.parametrize("n, world", [(12, 3), (13, 3), (2, 5), (100, 7)])
@pytest.mark.parametrize("drop, shuffle", [(False, True), (True, True), (False, False), (True, False)])
def test_distributed_sampler(n, world, drop, shuffle):
    for rank in range(world):
        samplers = [d.DistributedSampler(range(n), world, rank, shuffle, seed=3, drop_last=drop) if d is ours else
                    theirs.distributed.DistributedSampler(range(n), world, rank, shuffle, seed=3, drop_last=drop) for _, d in SIDES]
        for epoch in (0, 4):
            for s in samplers:
                s.set_epoch(epoch)
            assert list(samplers[0]) == list(samplers[1]) and len(samplers[0]) == len(samplers[1])


@pytest.mark.parametrize("lengths", [[3, 7], [10, 0], [0.3, 0.3, 0.4], [0.33, 0.33, 0.34], [1.0]])
def test_random_split(lengths):
    for seed in (None, 42):
        def run(library, data):
            kw = {} if seed is None else {"generator": library.Generator().manual_seed(seed)}
            return [list(part.indices) for part in data.random_split(range(10), lengths, **kw)]

        mine, his = both(run)
        assert mine == his


@pytest.mark.parametrize("options", [
    {}, {"batch_size": 4}, {"batch_size": 4, "shuffle": True}, {"batch_size": 4, "shuffle": True, "drop_last": True}, {"batch_size": None},
    {"batch_size": 3, "shuffle": True, "num_workers": 2}, {"batch_size": None, "shuffle": True, "num_workers": 1},
    {"batch_size": 3, "shuffle": True, "num_workers": 2, "persistent_workers": True, "prefetch_factor": 1},
])
@pytest.mark.parametrize("own", [False, True])
def test_loader_gives_the_same_batches_and_draws(options, own):
    def run(library, data):
        kw = {"generator": library.Generator().manual_seed(9)} if own else {}
        if options.get("num_workers"):
            kw["multiprocessing_context"] = "fork"
        dataset = data.TensorDataset(library.arange(18).reshape(9, 2), library.arange(9) * 0.5)
        loader = data.DataLoader(dataset, **options, **kw)
        epochs = [plain(list(loader)), plain(list(loader)), len(loader)]
        next(iter(loader))                                           # a pass that is broken off draws, too
        return [*epochs, plain(list(loader))]

    mine, his = both(run)
    assert mine == his


Point = __import__("collections").namedtuple("Point", "x y")
BATCHES = [
    [1, 2, 3], [1.5, 2], [True, False], [np.float32(1), np.float32(2)], [np.int16(1), np.int16(2)], [np.bool_(True)], ["a", "b"], [b"a"],
    [np.arange(3), np.arange(3)], [np.ones((2, 2), np.float32)], [(1, "a"), (2, "b")], [[1, 2.0], [3, 4.0]], [{"a": 1, "b": [2]}, {"a": 3, "b": [4]}],
    [Point(1, 2.0), Point(3, 4.0)], [np.array(3)], [np.array(True)], [[]], [()], [{"k": (1, np.zeros(2))}],
]


@pytest.mark.parametrize("batch", BATCHES, ids=repr)
def test_collate_and_convert(batch):
    assert plain(ours.default_collate(batch)) == plain(theirs.default_collate(batch))
    assert plain(ours.default_convert(batch)) == plain(theirs.default_convert(batch))


@pytest.mark.parametrize("base, worker", [(0, 0), (123, 3), (2 ** 62 + 17, 1)])
def test_workers_are_seeded_alike(base, worker):
    from torch.utils.data._utils.worker import _generate_state

    seed_everything(base, worker)
    mine = np.random.rand(3), random.random(), dtrain.rand(3).tolist()
    np.random.seed(_generate_state(base, worker))
    random.seed(base + worker)
    torch.manual_seed(base + worker)
    assert np.array_equal(mine[0], np.random.rand(3)) and mine[1:] == (random.random(), torch.rand(3).tolist())


class Streams:
    """Iterable datasets of both libraries: worker w yields its share of range(n), the last worker ends early."""

    def __init__(self, data, n):
        class Stream(data.IterableDataset):
            def __iter__(self):
                info = data.get_worker_info()
                w, k = (0, 1) if info is None else (info.id, info.num_workers)
                return iter(range(w, n - 7 * (w == k - 1 > 0), k))

        self.dataset = Stream()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("batch, drop", [(3, False), (3, True), (None, False)])
def test_iterable_datasets(workers, batch, drop):
    def run(library, data):
        kw = {"multiprocessing_context": "fork"} if workers else {}
        return plain(list(data.DataLoader(Streams(data, 23).dataset, batch, num_workers=workers, drop_last=drop, **kw)))

    mine, his = both(run)
    assert mine == his
