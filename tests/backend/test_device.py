"""``device`` objects and moving raw arrays."""

import copy
import pickle
import threading

import numpy as np
import pytest

from dtrain.backend import device as devices
from dtrain.backend import state
from dtrain.backend.device import device, device_of, move, resolve
from dtrain.backend.meta import MetaArray
from dtrain.errors import ArgumentError, DeviceError
from tests.util import normal


@pytest.mark.parametrize(
    "made, type, index, text",
    [
        (lambda: device("cpu"), "cpu", None, "cpu"),
        (lambda: device("cpu:0"), "cpu", 0, "cpu:0"),
        (lambda: device("cuda"), "cuda", None, "cuda"),
        (lambda: device("cuda:1"), "cuda", 1, "cuda:1"),
        (lambda: device("cuda", 1), "cuda", 1, "cuda:1"),
        (lambda: device(1), "cuda", 1, "cuda:1"),
        (lambda: device(np.int64(1)), "cuda", 1, "cuda:1"),
        (lambda: device(device("cuda:1")), "cuda", 1, "cuda:1"),
        (lambda: device(type="cuda", index=20), "cuda", 20, "cuda:20"),
        (lambda: device("meta"), "meta", None, "meta"),
    ],
)
def test_construction(made, type, index, text):
    found = made()
    assert (found.type, found.index, str(found)) == (type, index, text)
    assert found is device(text) is pickle.loads(pickle.dumps(found)) is copy.deepcopy(found)
    assert eval(repr(found)) is found


@pytest.mark.parametrize(
    "args, error, says",
    [
        (("gpu",), DeviceError, "cpu, cuda, cuda:N and meta"),
        (("cuda:x",), DeviceError, "number"),
        (("cuda:-1",), DeviceError, "number"),
        (("cuda:",), DeviceError, "number"),
        (("cuda:1", 1), ArgumentError, "twice"),
        (("cuda", -1), ArgumentError, "-1"),
        (("cuda", "0"), ArgumentError, "'0'"),
        ((True,), ArgumentError, "True"),
        ((None,), ArgumentError, "None"),
        ((1.5,), ArgumentError, "1.5"),
        ((device("cpu"), 0), ArgumentError, "leave the index out"),
    ],
)
def test_bad_arguments(args, error, says):
    with pytest.raises(error, match=says):
        device(*args)


def test_equal_devices_hash_alike_and_differ_from_strings():
    assert {device("cuda:0"), device("cuda", 0), device("cuda:1")} == {device(0), device(1)}
    assert device("cpu") != "cpu" and device("cuda") != device("cuda:0")


def test_devices_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot be changed"):
        device("cpu").index = 3


def test_default_device_nests_and_belongs_to_the_thread():
    seen = []
    with device("meta"), device("cuda:1"):
        assert devices.get_default_device() == device("cuda:1")
        thread = threading.Thread(target=lambda: seen.append(devices.get_default_device()))
        thread.start()
        thread.join()
    assert seen == [device("cpu")] and devices.get_default_device() == device("cpu")


def test_default_device_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), device("meta"):
        1 / 0
    assert state.local.device is None


def test_set_default_device():
    devices.set_default_device("meta")
    try:
        assert resolve(None) is device("meta")
    finally:
        devices.set_default_device(None)
    assert resolve(None) is device("cpu")


def test_resolve_gives_cuda_its_number():
    assert resolve("cuda") is device("cuda:0") and resolve("cuda:1") is device("cuda:1") and resolve(1) is device("cuda:1")


def test_device_of_every_kind_of_array(device):
    assert str(device_of(move(normal(3), devices.device(device)))) == device
    assert device_of(MetaArray((2,), np.float32)) is devices.META
    assert device_of(np.float32(1)) is devices.CPU


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_move_there_and_back(device, dtype, order):
    import ml_dtypes

    array = np.asfortranarray(normal(3, 4)) if order == "F" else normal(3, 4)
    array = array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    there = move(array, devices.device(device))
    back = move(there, devices.CPU)
    assert there.shape == array.shape and there.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert (there is array) == (device == "cpu") and move(there, devices.device(device)) is there


def test_move_of_strided_views_copies_what_is_seen():
    array = normal(4, 6)
    for view in (array[::2], array[:, ::-1], array.T[1:], np.broadcast_to(array[0], (3, 6)), array[2, 3]):
        np.testing.assert_array_equal(move(move(np.asarray(view), devices.device("cuda:0")), devices.CPU), view)


def test_move_between_gpus(second_gpu):
    first = move(normal(4, 6), devices.device("cuda:0"))
    for view in (first, first.T, first[::2, 1:], first[0]):
        second = move(view, devices.device(second_gpu))
        assert str(device_of(second)) == second_gpu
        np.testing.assert_array_equal(second.get(), view.get())


def test_move_to_meta_keeps_shape_and_dtype():
    there = move(normal(2, 3, dtype=np.float32), devices.META)
    assert isinstance(there, MetaArray) and there.shape == (2, 3) and there.dtype == np.float32


def test_meta_has_nothing_to_move():
    with pytest.raises(DeviceError, match="no data"):
        move(MetaArray((2,), np.float32), devices.CPU)


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="cuda:7 was asked for.*cuda:0"):
        move(normal(2), devices.device("cuda:7"))
