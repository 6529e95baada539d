"""Generators and the rank's random state: seeding, saving, forking, errors. What is drawn is checked against PyTorch elsewhere."""

import copy
import pickle

import numpy as np
import pytest

from dtrain.backend import dtypes, namespace, philox, random, state
from dtrain.errors import ArgumentError, DeviceError, DtypeError, ShapeError

F32 = dtypes.float32


@pytest.fixture(autouse=True)
def own_rank():
    """Each test is a rank of its own, and leaves the process's generators alone."""
    with state.use_rank(state.RankState()):
        yield


def draw(generator=None):
    return random.normal(7, F32, generator=generator).tolist()


def test_manual_seed_repeats_and_covers_dropout():
    def run():
        return draw(), random.dropout_mask(namespace.numpy, (5, 9), 0.5).tolist(), random.randperm(9).tolist()

    random.manual_seed(5)
    first = run()
    assert run() != first
    assert random.manual_seed(5) is random.default_generator() and run() == first and random.initial_seed() == 5


def test_a_known_seed():
    random.manual_seed(42)
    assert random.uniform(3, F32).tolist() == [0.8822692632675171, 0.9150039553642273, 0.38286375999450684]


def test_ranks_have_generators_of_their_own():
    random.manual_seed(5)
    first = draw()
    with state.use_rank(state.RankState()):
        random.manual_seed(6)
        draw()
    second = draw()
    random.manual_seed(5)
    assert [draw(), draw()] == [first, second]


def test_unseeded_ranks_differ():
    first = draw()
    with state.use_rank(state.RankState()):
        assert draw() != first


@pytest.mark.parametrize("other", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g)), lambda g: g.clone_state(),
                                   lambda g: random.Generator().set_state(g.get_state())])
def test_a_copy_goes_on_alike(other):
    g = random.Generator().manual_seed(3)
    draw(g)
    random.dropout_mask(namespace.numpy, (9,), 0.5, g)
    h = other(g)
    assert draw(g) == draw(h) and g.get_state().tolist() == h.get_state().tolist() and g.initial_seed() == h.initial_seed() == 3


def test_rng_state_brings_back_numbers_masks_and_the_kept_normal():
    random.manual_seed(1)
    random.normal(1, F32)
    random.dropout_mask(namespace.numpy, (9,), 0.5)
    place = random.get_rng_state()
    first = draw(), random.dropout_mask(namespace.numpy, (9,), 0.5).tolist()
    random.set_rng_state(place)
    assert (draw(), random.dropout_mask(namespace.numpy, (9,), 0.5).tolist()) == first


def test_fork_rng_puts_back_even_after_an_error():
    random.manual_seed(1)
    place = random.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError), random.fork_rng():
        draw()
        1 / 0
    assert random.get_rng_state().tolist() == place
    with random.fork_rng(enabled=False):
        draw()
    assert random.get_rng_state().tolist() != place


def test_seed_takes_entropy():
    g = random.Generator()
    assert g.seed() == g.initial_seed() != g.seed()
    assert random.seed() == random.initial_seed()


def test_a_counting_source_feeds_every_draw():
    """The source that CUDA generators use, on NumPy: each draw works and starts where the last one ended."""
    source = philox.DeviceSource(philox.Stream(4), namespace.numpy)
    f32, f64 = np.dtype(np.float32), np.dtype(np.float64)
    parts = [source.bits32(5), source.bits64(5), source.uniform32(5), source.uniform64(5), source.normals(5, f32, 0.0, 1.0), source.normals(5, f64, 1.0, 2.0)]
    assert [p.dtype.name for p in parts] == ["uint32", "uint64", "float32", "float64", "float32", "float64"]
    assert source.stream.offset == 2 + 3 + 2 + 3 + 2 + 3 and all(p.shape == (5,) for p in parts)


@pytest.mark.parametrize("call, error, match", [
    (lambda: random.manual_seed(2**64), ArgumentError, "2\\^64"),
    (lambda: random.manual_seed("x"), ArgumentError, "a seed is an integer, got 'x'"),
    (lambda: random.Generator("meta"), DeviceError, "hold no numbers"),
    (lambda: random.Generator().set_state(np.zeros(7, np.uint8)), ArgumentError, "5072 bytes"),
    (lambda: random.Generator().set_state(np.zeros(5072, np.uint8)), ArgumentError, "no state of a CPU generator"),
    (lambda: random.uniform(3, F32, generator=7), ArgumentError, "must be a dtrain.Generator or None, got int"),
    (lambda: random.uniform(3, dtypes.int64), DtypeError, "got dtype dtrain.int64; use randint"),
    (lambda: random.normal(3, dtypes.bool_), DtypeError, "floating"),
    (lambda: random.uniform((2, -1), F32), ShapeError, "negative"),
    (lambda: random.uniform(3, F32, 2, 1), ArgumentError, "low=2, high=1"),
    (lambda: random.normal(3, F32, 0, -1), ArgumentError, "std >= 0, got -1"),
    (lambda: random.randint(5, 5, 3), ArgumentError, "low=5, high=5"),
    (lambda: random.randint(0, 300, 3, dtypes.uint8), ArgumentError, "dtrain.uint8 holds 0 to 255, not 0 to 299"),
    (lambda: random.randperm(-1), ArgumentError, "n >= 0"),
    (lambda: random.randperm(300, dtypes.uint8), ArgumentError, "holds 0 to 255"),
    (lambda: random.bernoulli(1.5, shape=3), ArgumentError, "1.5"),
    (lambda: random.bernoulli(np.array([0.5, np.nan])), ArgumentError, "outside or NaN"),
    (lambda: random.exponential(3, F32, 0), ArgumentError, "rate above 0, got 0"),
    (lambda: random.multinomial(np.ones(3), 4), ArgumentError, "cannot draw 4 of 3 classes"),
    (lambda: random.multinomial(np.array([1.0, -1.0]), 1), ArgumentError, "not negative"),
    (lambda: random.multinomial(np.ones((2, 2, 2)), 1), ShapeError, "\\(2, 2, 2\\)"),
])
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_the_long_shuffle_is_a_permutation():
    from dtrain.backend.draws import _shuffled_inside_out
    from dtrain.backend.mt19937 import MT19937

    order = _shuffled_inside_out(MT19937(1), 1000)
    assert sorted(order) == list(range(1000)) != order
