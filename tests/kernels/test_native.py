"""The native CPU kernels: right to the last digits, the same in any vector, thread and process, and optional."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dtrain.backend import native, threads
from dtrain.errors import ConfigError
from tests.kernels import reference

BIG = 100_003       # several slices, and a remainder in each


@pytest.fixture(autouse=True)
def present():
    """The kernels, with the thread count put back."""
    assert native.available(), native.why_not()
    with threads.num_threads(threads.get_num_threads()):
        yield


def normal(dtype, size=BIG):
    return np.random.default_rng(1).normal(size=size).astype(dtype) * 3


@pytest.mark.parametrize("form", reference.FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_last_digits(dtype, form):
    x = reference.points(dtype)
    assert reference.ulps(native.gelu(x, form), x, reference.gelu, form) < 5
    slopes = native.gelu_backward(np.ones_like(x), x, form)
    assert reference.ulps(slopes, x, reference.slope, form) < 8


def test_last_digits_without_avx2():
    code = "from tests.kernels.test_native import *; assert native.instruction_set() == 'portable'\n"
    code += "for dtype in (np.float32, np.float64):\n    for form in reference.FORMS: test_last_digits(dtype, form)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "DTRAIN_CPU": "portable"}, check=True)


@pytest.mark.parametrize("form", reference.FORMS)
def test_infinities_nan_and_zeros_as_in_pytorch(form):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e30], np.float32)
    np.testing.assert_array_equal(native.gelu(x, form), np.array([np.inf, np.nan, np.nan, 0.0, -0.0, 1e30, -0.0], np.float32))
    assert np.signbit(native.gelu(x, form)[4])
    slopes = native.gelu_backward(np.ones_like(x), x, form)
    np.testing.assert_array_equal(slopes[2:], np.array([np.nan, 0.5, 0.5, 1, 0], np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_is_scaled_by_the_incoming_one(dtype):
    x, grad = normal(dtype), np.random.default_rng(2).normal(size=BIG).astype(dtype)
    np.testing.assert_array_equal(native.gelu_backward(grad, x), grad * native.gelu_backward(np.ones_like(x), x))


@pytest.mark.parametrize("form", reference.FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_an_element_does_not_depend_on_its_place(count, form):
    x = normal(np.float32)
    threads.set_num_threads(1)
    whole = native.gelu(x, form)
    threads.set_num_threads(count)
    assert np.array_equal(native.gelu(x, form), whole)
    for start, stop in ((1, 2), (5, 18), (3, BIG - 7)):
        assert np.array_equal(native.gelu(x[start:stop].copy(), form), whole[start:stop])


def test_keeps_shape_and_leaves_its_input():
    x = normal(np.float64, 24).reshape(2, 3, 4)
    before = x.copy()
    x.flags.writeable = False
    assert native.gelu(x).shape == (2, 3, 4) and np.array_equal(x, before)
    assert native.gelu(np.zeros((3, 0), np.float32)).shape == (3, 0)
    assert native.gelu(np.float32(1.0).reshape(())).shape == ()


@pytest.mark.parametrize(
    "x", [np.ones((4, 6), np.float32)[:, ::2], np.ones(4, np.float16), np.ones(4, np.int32), np.ones(4, ">f4"), np.ones((2, 3), order="F")]
)
def test_leaves_to_numpy_what_it_does_not_compute_on(x):
    assert native.gelu(x) is None
    assert native.gelu_backward(np.ones(x.shape, x.dtype), x) is None


def test_leaves_to_numpy_arrays_that_do_not_match():
    x = np.ones(4, np.float32)
    assert native.gelu_backward(np.ones(4, np.float64), x) is None
    assert native.gelu_backward(np.ones(5, np.float32), x) is None


def test_a_broadcast_gradient():
    x = normal(np.float32, 24).reshape(4, 6)
    np.testing.assert_array_equal(native.gelu_backward(np.broadcast_to(np.float32(2), x.shape), x), 2 * native.gelu_backward(np.ones_like(x), x))


def test_callers_from_many_threads():
    threads.set_num_threads(3)
    x = normal(np.float32)
    expected = native.gelu(x)
    with ThreadPoolExecutor(6) as callers:
        assert all(np.array_equal(result, expected) for result in callers.map(lambda _: native.gelu(x), range(60)))


def test_pool_sleeps_when_idle():
    threads.set_num_threads(4)
    native.gelu(normal(np.float32))
    assert native._module.running_threads() >= 3
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


def test_forked_child_computes_alone_until_told_otherwise():
    threads.set_num_threads(2)
    x = normal(np.float32)
    expected = native.gelu(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # newer Pythons warn of forks beside threads: ours is the case
        child = os.fork()
    if child == 0:
        alone = native.get_num_threads() == 1 and np.array_equal(native.gelu(x), expected) and native._module.running_threads() == 0
        threads.set_num_threads(2)
        together = np.array_equal(native.gelu(x), expected) and native._module.running_threads() == 1
        os._exit(0 if alone and together else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(native.gelu(x), expected)


def test_fork_while_another_thread_computes():
    threads.set_num_threads(2)
    x, stop = normal(np.float32), threading.Event()
    busy = threading.Thread(target=lambda: [native.gelu(x) for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            children = [os.fork() or _compute_and_exit(x) for _ in range(10)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
    finally:
        stop.set()
        busy.join()


def _compute_and_exit(x):
    threads.set_num_threads(2)
    os._exit(native.gelu(x) is None)


def test_pool_follows_the_number_of_threads():
    with threads.num_threads(3):
        assert native.get_num_threads() == 3
        with threads.num_threads(1):
            assert native.get_num_threads() == 1
        assert native.get_num_threads() == 3


@pytest.mark.parametrize("ours, theirs, expected", [("", "3,2", 3), ("5", "3", 5)])
def test_number_of_threads_comes_from_the_environment(ours, theirs, expected):
    env = {**os.environ, "DTRAIN_NUM_THREADS": ours, "OMP_NUM_THREADS": theirs}
    code = "from dtrain.backend import native; print(native.get_num_threads())"
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == f"{expected}\n"


def test_bad_number_of_threads_in_the_environment(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.setenv("DTRAIN_NUM_THREADS", "many")
    with pytest.raises(ConfigError, match="DTRAIN_NUM_THREADS must be an integer of at least 1, got 'many'"):
        threads.get_num_threads()


def test_disabled_block():
    x = normal(np.float32, 8)
    with native.disabled():
        assert native.gelu(x) is None
    assert native.gelu(x) is not None


@pytest.fixture
def absent(monkeypatch):
    """A dtrain that was built without a compiler."""
    monkeypatch.setitem(sys.modules, "dtrain._native", None)
    monkeypatch.setattr(native, "_module", native._UNTRIED)
    monkeypatch.setattr(native, "_problem", "")
    monkeypatch.setattr("dtrain.logs._said", set())
    monkeypatch.delenv("DTRAIN_REQUIRE_NATIVE", raising=False)


def test_absence_is_said_once(absent):
    assert not native.available() and native.get_num_threads() == 1 and native.instruction_set() == "none"
    assert "were not built; install a C++17 compiler" in native.why_not()
    x = normal(np.float32, 8)
    with pytest.warns(UserWarning, match="native CPU kernels were not built.*computes in NumPy") as said:
        assert native.gelu(x) is None and native.gelu_backward(x, x) is None
    assert len(said) == 1


def test_absence_is_an_error_where_required(absent, monkeypatch):
    monkeypatch.setenv("DTRAIN_REQUIRE_NATIVE", "1")
    with pytest.raises(ConfigError, match="DTRAIN_REQUIRE_NATIVE=1, but the native CPU kernels were not built"):
        native.gelu(normal(np.float32, 8))
