"""The number of threads reaches NumPy's BLAS, and the environment gives the first value."""

import ctypes

import numpy as np
import pytest

from dtrain.backend import threads
from dtrain.env import usable_cores
from dtrain.errors import ArgumentError


def blas_threads():
    """What OpenBLAS itself says."""
    for path in threads._loaded_libraries():
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads"):
            if hasattr(library, name):
                return getattr(library, name)()
    return None


def test_blas_follows():
    assert threads.blas_controlled() or not threads._loaded_libraries()
    with threads.num_threads(1):
        assert threads.get_num_threads() == 1 and blas_threads() in (1, None)
        assert (np.ones((300, 300)) @ np.ones((300, 300)) == 300).all()
        with threads.num_threads(2):
            assert threads.get_num_threads() == 2 and blas_threads() in (2, None)
        assert blas_threads() in (1, None)


def test_put_back_after_an_error():
    before = threads.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads.num_threads(before + 1):
        1 / 0
    assert threads.get_num_threads() == before


@pytest.mark.parametrize("value, expected", [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
def test_first_value(monkeypatch, value, expected):
    monkeypatch.delenv("DTRAIN_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr(threads, "_num_threads", None)
    assert threads.get_num_threads() == (expected or usable_cores())


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_bad_numbers(bad):
    with pytest.raises(ArgumentError, match="at least 1, got"):
        threads.set_num_threads(bad)
