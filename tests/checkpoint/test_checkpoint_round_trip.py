"""What is saved comes back: every type, every dtype, bit for bit."""

import os
import random
from collections import OrderedDict, namedtuple

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from dtrain.backend import dtypes
from dtrain.backend import random as backend_random
from dtrain.distributed.checkpoint import Checkpointer, compare, describe, latest, load, restore_rng_state, rng_state, save
from dtrain.errors import ArgumentError, CheckpointError
from tests.checkpoint.states import same, small_state

VALUES = [
    None, True, False, 0, -1, 10 ** 40, 1.5, -0.0, float("nan"), float("inf"), -float("inf"), 1e-320, 0.1, "", "\u00fc\0\ud800", b"", b"\0\xff",
    bytearray(b"x"), 1 - 2j, complex("nan-infj"), [], (), {}, set(), frozenset({1, (2, "a")}), {1, "b", None},
    [1, (2, [3, ()])], {"a": {"b": [None]}}, {1: "int", "1": "str", None: 0, (1, 2): 3, 2.5: 4, False: 5}, {"!": "array", "i": 0},
    {"!x": 1}, OrderedDict(b=1, a=2), {"__metadata__": 1}, np.float32(0.1), np.int64(-5), np.bool_(True), np.uint8(255),
    ml_dtypes.bfloat16(1.5), np.float64("nan"), np.complex64(1j), np.str_("text"), np.datetime64("2024-01-02"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values(tmp_path, value):
    save({"value": value, "deep": [{"in": (value,)}]}, tmp_path, 0)
    assert same(load(tmp_path).state, {"value": value, "deep": [{"in": (value,)}]})


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 5)])
@pytest.mark.parametrize("dtype", "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 bfloat16 "
                         "float8_e4m3fn float8_e5m2 complex64 complex128 >f4 >i8 <U3 S5 <M8[ns]".split())
def test_arrays_are_exact(tmp_path, dtype, shape):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    n = int(np.prod(shape)) * dtype.itemsize
    raw = np.arange(1, n + 1, dtype=np.uint8) if dtype.kind not in "bU" else np.zeros(n, np.uint8)
    array = raw.view(dtype).reshape(shape)
    save({"first": np.ones(3, np.uint8), "a": array}, tmp_path, 0)
    assert same(load(tmp_path).state["a"], array)


def test_nan_payloads_and_memory_layouts(tmp_path):
    bits = np.array([0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x80000000], np.uint32).view(np.float32)
    base = np.arange(24.0).reshape(4, 6)
    state = {"nan": bits, "t": base.T, "strided": base[::2, ::-3], "broadcast": np.broadcast_to(base[0], (3, 6))}
    save(state, tmp_path, 0)
    loaded = load(tmp_path).state
    assert same(loaded, state)
    assert all(a.flags.writeable and a.flags.c_contiguous for a in loaded.values())


def test_other_readers_open_the_files(tmp_path):
    state = small_state()
    state["odd"] = {"": np.ones(1), "a.b": np.ones(2), "a": {"b": np.ones(3)}, "__metadata__": np.ones(4), "c": np.ones(2, complex)}
    state["up/../../x"] = {"w": np.ones(5)}
    path = save(state, tmp_path, 12)
    assert sorted(os.listdir(path)) == ["manifest.json", "model.safetensors", "odd.safetensors", "optimizer.safetensors", "state.safetensors"]
    model = load_file(f"{path}/model.safetensors")
    assert list(model) and same(model["w"], state["model"]["w"]) and same(model["b"], state["model"]["b"])
    assert sorted(a.size for a in load_file(f"{path}/odd.safetensors").values()) == [1, 2, 3, 4, 32]
    assert same(load(tmp_path).state, state)


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("value", [object(), Point(1, 2), lambda: 0, random.Random(0), np.array([None]), np.zeros(2, "i4,f4"), range(3)])
def test_what_needs_pickle_is_refused_by_path(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"state\['a'\]\[1\]\['b'\] is a"):
        save({"a": [0, {"b": value}]}, tmp_path, 1)
    assert os.listdir(tmp_path) == []
    with pytest.raises(CheckpointError, match="got a list"):
        save([1], tmp_path, 1)


def test_steps_and_keep(tmp_path):
    assert latest(tmp_path) is None and latest(tmp_path / "nowhere") is None
    for step in (3, 20, 100, 123456789):
        save(small_state(step), tmp_path, step, keep=3)
    assert sorted(os.listdir(tmp_path)) == ["step-00000020", "step-00000100", "step-123456789"]
    assert latest(tmp_path) == 123456789 == latest(tmp_path, verify=True)
    assert same(load(tmp_path, 20).state, small_state(20)) and load(tmp_path).step == 123456789
    save(small_state(50), tmp_path, 50, keep=1)                        # an older step never removes newer ones
    assert sorted(os.listdir(tmp_path)) == ["step-00000050", "step-00000100", "step-123456789"]
    with pytest.raises(CheckpointError, match="no checkpoint of step 7 .* the steps there: 123456789, 100, 50"):
        load(tmp_path, 7)
    for bad in (-1, 1.5, "3"):
        with pytest.raises(ArgumentError, match="whole number"):
            save({}, tmp_path, bad)
    with pytest.raises(ArgumentError, match="keep"):
        save({}, tmp_path, 1, keep=0)


def test_only_canonical_names_count(tmp_path):
    state = small_state()
    save(state, tmp_path, 5)
    for name in ("step-6", "step-00000007.tmp", "Step-00000008", "step-00000009x", "latest"):
        os.mkdir(tmp_path / name)
    assert latest(tmp_path) == 5


def test_describe_and_compare(tmp_path):
    state = small_state()
    path = save(state, tmp_path, 5)
    for where in (tmp_path, path, path + "/"):
        found = describe(where)
        assert found.step == 5 and found.world_size == 1
        assert found.tensors == {"model.w": ("float32", (3, 4)), "model.b": ("bfloat16", (5,)), "optimizer.state.0.m": ("float64", (3, 4))}
    assert "model.b  bfloat16[5]" in str(describe(path))
    assert not compare(path, state) and not compare(path, {"model": state["model"]})
    other = {"model": {"w": np.zeros((3, 5), "f4"), "bias": np.zeros(5)}}
    difference = compare(path, other)
    assert difference.missing == ["model.bias (it has model.b)"] and difference.unexpected == ["model.b"]
    assert difference.changed == ["model.w is float32[3, 4] in the checkpoint, float32[3, 5] here"]
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        describe(tmp_path / "nowhere")


def test_checkpointer(tmp_path):
    keeper = Checkpointer(tmp_path / "run", every=10, keep=2)
    assert keeper.resume() is None
    saved = [s for s in range(45) if keeper.maybe_save(s, lambda: small_state(s))]
    assert saved == [10, 20, 30, 40] and sorted(os.listdir(tmp_path / "run")) == ["step-00000030", "step-00000040"]
    assert same(keeper.resume().state, small_state(40))
    assert not Checkpointer(tmp_path).due(10)
    with pytest.raises(ArgumentError, match="every"):
        Checkpointer(tmp_path, every=0)
    with pytest.raises(ArgumentError, match="on_error"):
        Checkpointer(tmp_path, on_error="ignore")


def test_load_says_that_there_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="there is none; check the path"):
        load(tmp_path)


def test_random_states(tmp_path):
    def draws():
        return [random.random(), np.random.rand(), float(backend_random.uniform((), dtypes.float64)), float(np.random.randn())]

    backend_random.manual_seed(5)
    np.random.randn()                                      # leaves the second of a pair behind
    save({}, tmp_path, 1, per_rank=rng_state())
    expected = draws()
    draws()
    restore_rng_state(load(tmp_path).per_rank)
    assert draws() == expected
    with pytest.raises(CheckpointError, match="rng_state"):
        restore_rng_state({"python": 1})
