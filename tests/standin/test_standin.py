"""The stand-in refuses what CuPy refuses, and races where CuPy would."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from tests import standin
from tests.standin import devices, memory, surface
from tests.standin.devices import OrderError

BF16 = ml_dtypes.bfloat16


@pytest.fixture
def a(cp):
    return cp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


REFUSED = {
    "np.asarray": (lambda cp, a: np.asarray(a), TypeError, "Implicit conversion"),
    "np.array": (lambda cp, a: np.array(a), TypeError, "Implicit conversion"),
    "buffer": (lambda cp, a: memoryview(a), TypeError, "bytes-like"),
    "NumPy operand": (lambda cp, a: a + np.ones(3), TypeError, "Unsupported type"),
    "NumPy operand on the left": (lambda cp, a: np.ones(3) + a, TypeError, "Unsupported type"),
    "NumPy ufunc with NumPy operand": (lambda cp, a: np.add(a, np.ones(3)), TypeError, "Unsupported type"),
    "0-dim NumPy operand": (lambda cp, a: a * np.array(2.0), TypeError, "Unsupported type"),
    "list operand": (lambda cp, a: cp.add(a, [1, 2, 3]), TypeError, "Unsupported type"),
    "None operand": (lambda cp, a: a + None, TypeError, "Unsupported type"),
    "NumPy part": (lambda cp, a: cp.concatenate([a, np.ones((2, 3))]), TypeError, "cupy arrays can be joined"),
    "function of NumPy data": (lambda cp, a: cp.sum(np.ones(3)), TypeError, "takes device arrays"),
    "NumPy operand of a function": (lambda cp, a: cp.dot(a, np.ones(3)), TypeError, "Unsupported type"),
    "NumPy index": (lambda cp, a: a[np.array([0])], TypeError, "hidden copy"),
    "float index": (lambda cp, a: a[cp.asarray([0.5])], IndexError, "integer or boolean"),
    "whole number out of range": (lambda cp, a: a[2], IndexError, "out of bounds"),
    "two masks": (lambda cp, a: a[a[:, 0] > 0, a[0] > 0], NotImplementedError, "one boolean"),
    "NumPy into a part": (lambda cp, a: a.__setitem__(0, np.ones(3, np.float32)), TypeError, "Unsupported type"),
    "NumPy into the whole": (lambda cp, a: a.__setitem__(..., np.ones((2, 3), np.float32)), TypeError, "Unsupported type"),
    "list into a part": (lambda cp, a: a.__setitem__(0, [1, 2, 3]), TypeError, "Unsupported type"),
    "numpy keyword": (lambda cp, a: cp.sum(a, initial=1), TypeError, "unexpected keyword argument 'initial'"),
    "numpy keyword of a ufunc": (lambda cp, a: cp.exp(a, where=a > 0), TypeError, "Wrong arguments"),
    "too many arguments": (lambda cp, a: cp.take(a, 0, 0, None, "clip"), TypeError, "positional arguments"),
    "sort kind": (lambda cp, a: cp.argsort(a, kind="heapsort"), ValueError, "stable"),
    "object dtype": (lambda cp, a: cp.asarray(np.array([None])), ValueError, "Unsupported dtype"),
    "string dtype": (lambda cp, a: a.astype("U3"), ValueError, "Unsupported dtype"),
    "hash": (lambda cp, a: hash(a), TypeError, "unhashable"),
    "index protocol": (lambda cp, a: range(cp.arange(3)[2]), TypeError, "integer"),
    "attribute of NumPy only": (lambda cp, a: a.flags.writeable, AttributeError, "writeable"),
    "method of NumPy only": (lambda cp, a: a.setflags(write=False), AttributeError, "setflags"),
    "name of NumPy only": (lambda cp, a: cp.frompyfunc, AttributeError, "no such name"),
    "name not here yet": (lambda cp, a: cp.i0, AttributeError, "stand-in not yet"),
    "in-place cast": (lambda cp, a: cp.arange(3).__iadd__(0.5), TypeError, "could not be coerced"),
    "in-place broadcast": (lambda cp, a: a[0].__iadd__(a), ValueError, "cannot be written"),
    "bf16 batched matmul": (lambda cp, a: cp.matmul(a[None].astype(BF16), a.T[None].astype(BF16)), TypeError, "batched"),
    "bf16 sort": (lambda cp, a: cp.sort(a.astype(BF16)), TypeError, "no bfloat16"),
    "bf16 cumsum": (lambda cp, a: cp.cumsum(a.astype(BF16)), TypeError, "no bfloat16"),
    "bf16 add.at": (lambda cp, a: cp.add.at(a.astype(BF16), 0, 1.0), TypeError, "bfloat16"),
    "int8 add.at": (lambda cp, a: cp.add.at(a.astype(np.int8), 0, 1), TypeError, "int8"),
    "power.at": (lambda cp, a: cp.power.at(a, 0, 1), NotImplementedError, "not supported"),
    "kernel options as a list": (lambda cp, a: cp.RawModule(code="", options=["-O3"]), TypeError, "expected tuple"),
    "absent device": (lambda cp, a: cp.cuda.Device(2).use(), devices.CUDARuntimeError, "InvalidDevice"),
    "truth of several": (lambda cp, a: bool(a), ValueError, "ambiguous"),
    "length of a scalar": (lambda cp, a: len(a.sum()), TypeError, "unsized"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(cp, a, name):
    attempt, error, says = REFUSED[name]
    with pytest.raises(error, match=says):
        attempt(cp, a)


def test_reductions_and_elements_stay_arrays(cp, a):
    for value in (a.sum(), a[0, 0], cp.max(a), a.mean(), cp.allclose(a, a), a.argmax(), cp.dot(a[0], a[0])):
        assert type(value) is cp.ndarray and value.shape == ()
    assert float(a.sum()) == 15.0 and int(a.argmax()) == 5 and a[1, 2].item() == 5.0


def test_an_index_array_out_of_range_wraps_silently(cp, a):
    index = cp.asarray([3, -4])
    assert a[:, index].get().tolist() == [[0, 2], [3, 5]]
    assert cp.take(a, index, axis=1).get().tolist() == [[0, 2], [3, 5]]
    assert cp.take_along_axis(a, cp.asarray([[4], [5]]), 1).get().tolist() == [[1], [5]]
    a[:, index] = 9
    assert a.get().tolist() == [[9, 1, 9], [9, 4, 9]]
    cp.add.at(a, cp.asarray([2, 0, 0]), 1)
    assert a.get().tolist() == [[12, 4, 12], [9, 4, 9]]


def test_empty_memory_is_no_zeros(cp):
    assert np.isnan(cp.empty(3).get()).all() and (cp.empty(3, np.int32).get() != 0).all()


@pytest.mark.parametrize(
    "left, right, result",
    [
        ("int8", 1.5, "float64"), ("int8", 1, "int8"), ("float16", 1.5, "float16"), ("bfloat16", 1.5, "float32"),
        ("bfloat16", "bfloat16", "bfloat16"), ("bfloat16", "float32", "float32"), ("bool", 2, "int64"), ("float32", 2j, "complex64"),
    ],
)  # fmt: skip
def test_dtypes_follow_the_recorded_loops(cp, left, right, result):
    x = cp.ones(2, BF16 if left == "bfloat16" else left)
    y = cp.ones(2, BF16 if right == "bfloat16" else right) if isinstance(right, str) else right
    assert (x * y).dtype == (BF16 if result == "bfloat16" else result)


def test_bfloat16_where_and_tril_come_back_as_float32(cp, a):
    half = a.astype(BF16)
    assert cp.where(half > 1, half, half).dtype == np.float32 and cp.tril(half).dtype == np.float32


def test_clip_follows_its_loops(cp, a):
    assert cp.clip(cp.arange(4), 1.5, None).dtype == np.float64 and cp.clip(cp.arange(4, dtype=np.int8), 1, 2).dtype == np.int8
    assert cp.clip(a.astype(BF16), 1, 2).dtype == np.float32 and cp.clip(a, 2, None).get().tolist() == [[2, 2, 2], [3, 4, 5]]
    assert cp.clip(a, 3, 1).get().tolist() == [[1, 1, 1], [1, 1, 1]]
    assert cp.where(a > 2, a, 1).dtype == np.float32 and cp.where(a > 2, a, np.float64(1)).dtype == np.float64
    with pytest.raises(TypeError, match="NoneType"):
        cp.clip(a > 2, 0, None)


def test_half_sums_accumulate_in_float32(cp):
    for dtype in (BF16, np.float16):
        assert float(cp.ones(5000, dtype).sum()) == float(np.asarray(5000).astype(dtype))
        assert cp.ones(5000, dtype).sum().dtype == dtype


def test_views_share_memory_and_copies_do_not(cp, a):
    assert a[0].base is a and a.T.base is a and a.reshape(3, 2).data.mem is a.data.mem
    assert a[:, 1:].data.ptr == a.data.ptr + 4
    a.reshape(-1)[0] = 7
    assert float(a[0, 0]) == 7
    for other in (a.copy(), a + 0, a[[0, 1]], a.T.reshape(-1), a.astype(np.float32)):
        assert other.data.mem is not a.data.mem
    assert a.astype(np.float32, copy=False) is a


def test_memory_pointer_makes_views(cp, a):
    part = cp.ndarray((3,), np.float32, memptr=a.data + 12)
    part += 1
    assert a.get().tolist() == [[0, 1, 2], [4, 5, 6]]


def test_an_array_of_another_device_is_refused(cp, a):
    with cp.cuda.Device(1):
        for work in (lambda: a + 1, lambda: cp.sum(a), lambda: a.fill(0), lambda: a[cp.asarray([0])]):
            with pytest.raises(ValueError, match="different from the current device"):
                work()
        assert a[0].T.shape == (3,)  # views are no work
        assert a.get().shape == (2, 3)  # waits, so that what follows has an order
        assert a.copy().device.id == 1 and cp.asarray(a).device.id == 1


def test_reading_what_another_stream_wrote(cp, a):
    side = cp.cuda.Stream(non_blocking=True)
    made = a + 1
    with side, pytest.raises(OrderError, match="reads what was written"):
        made * 2
    event = cp.cuda.get_current_stream().record()
    side.wait_event(event)
    with side:
        made * 2
    late = a + 2
    with side, pytest.raises(OrderError):
        late * 2  # the event came before it


def test_writing_what_another_stream_reads(cp, a):
    side = cp.cuda.Stream(non_blocking=True)
    cp.cuda.get_current_stream().synchronize()
    with side:
        a * 2
    with pytest.raises(OrderError, match="being read"):
        a += 1
    side.synchronize()
    a += 1


def test_blocking_streams_and_the_default_stream_wait_for_each_other(cp, a):
    stream = cp.cuda.Stream()
    with stream:
        made = a * 2
        made *= 2
    made += 0
    with stream:
        made *= 2
    del stream  # what it did still comes first
    assert float(made.sum()) == 120


def test_synchronizing_the_device_waits_for_streams_that_are_gone(cp, a):
    with cp.cuda.Stream(non_blocking=True):
        cp.cuda.get_current_stream().wait_event(cp.cuda.Stream.null.record())
        made = a * 2
    with pytest.raises(OrderError):
        made + 1
    cp.cuda.Device(0).synchronize()
    assert float(made.sum()) == 30


def test_two_side_streams_do_not(cp, a):
    first, second = cp.cuda.Stream(), cp.cuda.Stream()
    with first:
        made = a * 2
    with second, pytest.raises(OrderError):
        made * 2


def test_a_stream_belongs_to_its_device(cp):
    stream = cp.cuda.Stream()
    with cp.cuda.Device(1), pytest.raises(RuntimeError, match="does not match"):
        stream.__enter__()


def test_the_pool_runs_out_of_memory(cp):
    pool = cp.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + 4096)
    try:
        with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory allocating"):
            for _ in range(20):
                pool.free_all_blocks()
                cp.zeros(1 << 20)
    finally:
        pool.set_limit(size=0)


def test_copies_and_pickles(cp, a):
    for other in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        np.testing.assert_array_equal(other.get(), a.get())


def test_dlpack_shares_memory_on_the_device_only(cp, a):
    shared = cp.from_dlpack(a[1:])
    shared += 1
    assert a.get().tolist() == [[0, 1, 2], [4, 5, 6]] and a.__dlpack_device__() == (2, 0)
    with pytest.raises(TypeError, match="CPU arrays cannot"):
        cp.from_dlpack(np.ones(3))
    with pytest.raises((ValueError, BufferError, RuntimeError)):
        np.from_dlpack(a)


def test_numpy_functions_go_to_the_device(cp, a):
    assert type(np.exp(a)) is cp.ndarray and type(np.sum(a, axis=0)) is cp.ndarray and type(np.float32(2) * a) is cp.ndarray


def test_tensors_get_their_turn_in_reflected_operations(cp, a):
    class Other:
        __array_ufunc__ = None

        def __rmul__(self, other):
            return "mine"

    assert a * Other() == "mine"


def exposed():
    """(module or class of CuPy, names the stand-in has there)."""
    from tests.standin import array, raw

    for path, contents in standin.build().items():
        if path in surface.RECORD:
            yield path, set(contents)
    classes = {"cupy.ndarray": array.ndarray, "cupy.cuda.Device": devices.Device, "cupy.cuda.Stream": devices.Stream,
               "cupy.cuda.MemoryPool": memory.MemoryPool, "cupy.cuda.MemoryPointer": memory.MemoryPointer,
               "cupy.RawModule": raw.RawModule}  # fmt: skip
    for path, kind in classes.items():
        yield path, {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("path, names", list(exposed()), ids=lambda value: value if isinstance(value, str) else "")
def test_it_has_nothing_that_cupy_has_not(path, names):
    assert names - {"__version__"} <= set(surface.RECORD[path])
