"""DataLoader: batches, errors, resuming; the same with and without workers (orders against PyTorch: parity tests)."""

import copy
import itertools
import random
from collections import OrderedDict, UserDict

import ml_dtypes
import numpy as np
import pytest

import dtrain
from dtrain.data import (DataLoader, Dataset, DistributedSampler, IterableDataset, RandomSampler, SubsetRandomSampler, TensorDataset,
                         WeightedRandomSampler, default_collate, default_convert)
from dtrain.errors import ArgumentError, ShapeError

WORKERS = [{}, {"num_workers": 1, "multiprocessing_context": "fork"}, {"num_workers": 2, "multiprocessing_context": "fork"}]


class Rows(Dataset):
    """Sample i is (an array full of i, i)."""

    def __init__(self, n, shape=(3,)):
        self.n, self.shape = n, shape

    def __getitem__(self, i):
        return np.full(self.shape, i, np.float32), i

    def __len__(self):
        return self.n


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def numbers(loader):
    return [y.tolist() for _, y in loader]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("shape", [(), (3,), (70, 40)])          # in the message, and through shared memory
def test_batches(workers, shape):
    loader = DataLoader(Rows(10, shape), 4, **workers)
    batches = list(loader)
    assert len(loader) == 3 and [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for x, y in batches:
        assert type(x) is dtrain.Tensor and x.dtype is dtrain.float32 and x.shape == (len(y), *shape)
        assert np.array_equal(x.numpy().reshape(len(y), -1)[:, 0], y.numpy())
        x += 1                                                   # batches belong to the user
    assert not loader.dataset[0][0].any()


@pytest.mark.parametrize("workers", WORKERS)
def test_every_kind_of_sample_arrives(workers):
    class Zoo(Dataset):
        def __getitem__(self, i):
            big = np.arange(i, i + 3000)
            return {"t": dtrain.arange(i, i + 2000), "bf": big.astype(ml_dtypes.bfloat16), "f": np.asfortranarray(big.reshape(30, 100)), "s": "x" * 5000,
                    "n": None if i > 5 else i, "o": OrderedDict(a=big[::2], b=[big[:1], (i, 2.5)]), "none": np.zeros((2, 0)), "u": np.array(["é"])}

        def __len__(self):
            return 4

    expected = [Zoo()[i] for i in range(4)]
    for mine, right in zip(DataLoader(Zoo(), batch_size=None, collate_fn=lambda sample: sample, **workers), expected, strict=True):
        assert mine.keys() == right.keys() and mine["s"] == right["s"] and mine["n"] == right["n"] and mine["u"].tolist() == ["é"]
        assert type(mine["t"]) is dtrain.Tensor and mine["t"].tolist() == right["t"].tolist()
        for a, b in [(mine["bf"], right["bf"]), (mine["f"], right["f"]), (mine["o"]["a"], right["o"]["a"]), (mine["none"], right["none"])]:
            assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() and a.flags.writeable
        assert mine["o"]["b"][1] == (right["o"]["b"][1])


def test_collation():
    batch = default_collate([{"a": UserDict(x=1), "b": "s", "c": (1.0, [np.ones(2)])}, {"a": UserDict(x=2), "b": "t", "c": (2.0, [np.zeros(2)])}])
    assert type(batch["a"]) is UserDict and batch["a"]["x"].tolist() == [1, 2] and batch["b"] == ["s", "t"]
    assert batch["c"][0].dtype is dtrain.float64 and batch["c"][1][0].tolist() == [[1, 1], [0, 0]]
    halves = [dtrain.ones(2, dtype=dtrain.bfloat16)] * 3
    assert default_collate(halves).dtype is dtrain.bfloat16 and default_collate(halves).shape == (3, 2)
    weight = dtrain.ones(2, requires_grad=True)
    default_collate([weight, weight * 2]).sum().backward()
    assert weight.grad.tolist() == [3, 3]
    assert default_convert({"a": (np.ones(1), "x")})["a"][0].tolist() == [1]


@pytest.mark.parametrize("batch, error, message", [
    ([np.ones(2), np.ones(2), np.ones(3)], ShapeError, r"sample 0 has \(2,\), sample 2 has \(3,\)"),
    ([[1, 2], [1]], ShapeError, "different lengths: 2, 1"),
    ([object()], TypeError, "builtins.object"),
    ([np.array(["a"])], TypeError, "<U1"),
    ([None], TypeError, "NoneType"),
])
def test_what_cannot_be_collated(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)


def test_a_handler_can_be_added():
    from dtrain.data.collate import collate, default_collate_fn_map

    handlers = {complex: lambda batch, *, collate_fn_map: sum(batch), **default_collate_fn_map}
    assert collate([{"z": 1j}, {"z": 2}], collate_fn_map=handlers) == {"z": 2 + 1j}


@pytest.mark.parametrize("options, message", [
    ({"num_workers": -1}, "got -1"), ({"timeout": -1}, "timeout"), ({"prefetch_factor": 2}, "needs workers"), ({"batch_size": 0}, "batch_size"),
    ({"prefetch_factor": 0, "num_workers": 1}, "at least 1"), ({"persistent_workers": True}, "num_workers"), ({"batch_size": 2.5}, "batch_size"),
    ({"multiprocessing_context": "fork"}, "num_workers"), ({"multiprocessing_context": "thread", "num_workers": 1}, "fork"),
    ({"sampler": [1], "shuffle": True}, "either a sampler"), ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler decides"),
    ({"batch_sampler": [[1]], "drop_last": True}, "batch_sampler decides"), ({"batch_size": None, "drop_last": True}, "no last one"),
])
def test_bad_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        DataLoader(Rows(4), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}])
def test_iterable_datasets_decide_their_order(options):
    with pytest.raises(ArgumentError, match="decides its own order"):
        DataLoader(Count(3), **options)


def test_other_bad_use():
    with pytest.raises(TypeError, match="int"):
        DataLoader(Rows(4), num_workers=1, multiprocessing_context=3)
    with pytest.raises(ArgumentError, match="sampler of a DataLoader cannot be changed"):
        DataLoader(Rows(4)).sampler = [1]
    with pytest.raises(ArgumentError, match="empty"):
        DataLoader(Rows(0), shuffle=True)
    assert list(DataLoader(Rows(0))) == []
    with pytest.warns(UserWarning, match="1000 loader workers share"):
        DataLoader(Rows(1), num_workers=1000)


def test_lengths_of_iterable_datasets():
    assert [len(DataLoader(Count(10), b, drop_last=d)) for b, d in [(3, False), (3, True), (5, True)]] == [4, 3, 2]
    assert len(DataLoader(Count(10), None)) == 10
    loader = DataLoader(Count(4), 2, num_workers=2, multiprocessing_context="fork")
    len(loader)
    with pytest.warns(UserWarning, match="said it has 4 samples but gives more"):
        assert [b.tolist() for b in loader] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def given(n):
    return dtrain.Generator().manual_seed(n)


LOADERS = {
    "sequential": lambda **kw: DataLoader(Rows(22), 4, **kw),
    "shuffled": lambda **kw: DataLoader(Rows(22), 4, shuffle=True, **kw),
    "own generator": lambda **kw: DataLoader(Rows(22), 4, shuffle=True, generator=given(3), **kw),
    "sampler's generator": lambda **kw: DataLoader(Rows(22), 4, sampler=RandomSampler(range(22), num_samples=50, generator=given(4)), **kw),
    "subset": lambda **kw: DataLoader(Rows(22), 4, sampler=SubsetRandomSampler(range(3, 20)), drop_last=True, **kw),
    "weighted": lambda **kw: DataLoader(Rows(22), 4, sampler=WeightedRandomSampler(range(22), 30), **kw),
    "distributed": lambda **kw: DataLoader(Rows(22), 4, sampler=DistributedSampler(range(22), 2, 1), **kw),
    "no batches": lambda **kw: DataLoader(Rows(22), None, shuffle=True, **kw),
    "iterable": lambda **kw: DataLoader(TupleCount(22), 4, **kw),
}


class TupleCount(Count):
    def __iter__(self):
        return ((0, i) for i in range(self.n))


def train(loader, first, last):
    """The batches of epochs ``first`` to ``last`` - 1; between them the training draws from the default generator, too."""
    for epoch in range(first, last):
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(epoch)
        for _, y in loader:
            yield np.asarray(y).tolist()
            dtrain.rand(1)


@pytest.mark.parametrize("workers", WORKERS[:2])
@pytest.mark.parametrize("name", LOADERS)
def test_resume_at_every_step_of_three_epochs(name, workers):
    """A fresh loader, given the state and the random state of step k, gives what the first one gave from k on."""
    dtrain.manual_seed(1)
    loader, states, straight = LOADERS[name](**workers), [], []
    for batch in train(loader, 0, 3):
        states.append((copy.deepcopy(loader.state_dict()), dtrain.get_rng_state()))
        straight.append(batch)
    per_epoch = len(straight) // 3
    for step in (0, per_epoch - 1, per_epoch + 1) if workers else range(3 * per_epoch):
        dtrain.manual_seed(99)
        resumed = LOADERS[name](**workers)
        resumed.load_state_dict(states[step][0])
        dtrain.set_rng_state(states[step][1])
        dtrain.rand(1)
        assert list(train(resumed, step // per_epoch, 3)) == straight[step + 1:]


@pytest.mark.parametrize("name", ["shuffled", "own generator", "subset"])
def test_a_state_before_the_first_batch(name):
    dtrain.manual_seed(2)
    loader = LOADERS[name]()
    it = iter(loader)
    state, rng = copy.deepcopy(loader.state_dict()), dtrain.get_rng_state()
    dtrain.rand(1)
    straight, after = [y.tolist() for _, y in it], dtrain.rand(1).item()
    dtrain.manual_seed(99)
    resumed = LOADERS[name]()
    resumed.load_state_dict(state)
    dtrain.set_rng_state(rng)
    it = iter(resumed)
    dtrain.rand(1)
    assert [y.tolist() for _, y in it] == straight and dtrain.rand(1).item() == after


def test_a_state_between_epochs_and_of_another_loader():
    make = LOADERS["own generator"]
    loader = make()
    first, state = numbers(loader), loader.state_dict()
    second = numbers(loader)
    again = make()
    again.load_state_dict(state)
    assert first != second == numbers(again)
    fresh = make()
    fresh.load_state_dict(make().state_dict())
    assert numbers(fresh) == first
    with pytest.raises(ArgumentError, match="1 generators, this one has 0"):
        LOADERS["shuffled"]().load_state_dict(state)
    with pytest.raises(ArgumentError, match="lacks batches"):
        make().load_state_dict({"ended": False})


def test_resuming_fetches_nothing_twice():
    fetched = []

    class Watched(Rows):
        def __getitem__(self, i):
            fetched.append(i)
            return super().__getitem__(i)

    loader = DataLoader(Watched(100), 10)
    for _ in itertools.islice(loader, 7):
        pass
    state = loader.state_dict()
    fetched.clear()
    resumed = DataLoader(Watched(100), 10)
    resumed.load_state_dict(state)
    list(resumed)
    assert fetched == list(range(70, 100))


def test_a_state_survives_a_checkpoint(tmp_path):
    from dtrain.distributed.checkpoint import load, save

    loader = LOADERS["own generator"]()
    straight = numbers(LOADERS["own generator"]())
    next(iter(loader))
    save({"loader": loader.state_dict()}, tmp_path, 1)
    resumed = LOADERS["own generator"]()
    resumed.load_state_dict(load(tmp_path).state["loader"])
    assert numbers(resumed) == straight[1:]


def test_datasets_that_fetch_many_at_once():
    class Many(Rows):
        def __getitems__(self, indices):
            return [self[i] for i in reversed(indices)]

    assert numbers(DataLoader(Many(4), 2)) == [[1, 0], [3, 2]]


def test_python_names_of_pytorch():
    data = dtrain.utils.data
    from dtrain.utils.data.dataloader import DataLoader as A
    from dtrain.utils.data.dataset import TensorDataset as B
    from dtrain.utils.data.distributed import DistributedSampler as C
    from dtrain.utils.data.sampler import RandomSampler as D

    assert (A, B, C, D) == (DataLoader, TensorDataset, DistributedSampler, RandomSampler) == (
        data.DataLoader, data.TensorDataset, data.DistributedSampler, data.RandomSampler)


def test_seeded_draws_do_not_leak():
    random.seed(1)
    before = random.getstate(), np.random.get_state()[2]
    list(DataLoader(Rows(4), 2, shuffle=True, num_workers=1, multiprocessing_context="fork"))
    assert (random.getstate(), np.random.get_state()[2]) == before
