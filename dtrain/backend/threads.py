"""How many threads one operation may use: one number for our own kernels and for NumPy's BLAS.

NumPy's wheels carry OpenBLAS without a Python way to set its threads. Its function is found in the library that is
already loaded; other builds use MKL, BLIS or OpenMP names. Where none is found, the number governs our kernels only,
and `blas_controlled()` says so.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from dtrain.errors import ArgumentError, ConfigError

_SETTERS = [
    *(f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "_64", "")),
    "MKL_Set_Num_Threads", "bli_thread_set_num_threads",
]
_LIBRARIES = ("openblas", "mkl_rt", "blis")
_num_threads: int | None = None
followers: list[Callable[[int], None]] = []     # thread pools of our own, told of every change


def get_num_threads() -> int:
    """Threads an operation may use: what was set, else DTRAIN_NUM_THREADS, else OMP_NUM_THREADS, else the cores this process may run on."""
    global _num_threads
    if _num_threads is None:
        from dtrain.env import usable_cores  # here, not above: it brings dataclasses and datetime, 30 ms of every import

        _num_threads = _from_environment() or usable_cores()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Let our kernels and NumPy's BLAS use ``n`` threads, in all Python threads of this process."""
    global _num_threads
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"the number of threads is an integer of at least 1, got {n!r}")
    _num_threads = n
    if (setter := _blas_setter()) is not None:
        setter(n)
    for follow in followers:
        follow(n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """``n`` threads inside the block, as many as before afterwards."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def blas_controlled() -> bool:
    """Whether set_num_threads reaches NumPy's BLAS."""
    return _blas_setter() is not None


def _from_environment() -> int | None:
    ours = os.environ.get("DTRAIN_NUM_THREADS")
    if ours:
        if not ours.isdecimal() or int(ours) < 1:
            raise ConfigError(f"DTRAIN_NUM_THREADS must be an integer of at least 1, got {ours!r}")
        return int(ours)
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


@lru_cache(maxsize=1)
def _blas_setter():
    """The loaded BLAS library's function that sets its threads, taking an int; None if there is none we know."""
    import numpy  # noqa: F401  loads the library

    for path in _loaded_libraries():
        try:
            library = ctypes.CDLL(path, mode=getattr(os, "RTLD_NOLOAD", 0) | getattr(os, "RTLD_LAZY", 1))
        except OSError:
            continue
        for name in _SETTERS:
            if hasattr(library, name):
                setter = getattr(library, name)
                setter.argtypes, setter.restype = [ctypes.c_int], None
                return setter
    return None


def _loaded_libraries() -> list[str]:
    """Paths of the BLAS libraries in this process; where the system does not list them, those NumPy's wheel brought."""
    try:
        with open("/proc/self/maps") as file:
            paths = {line.split(maxsplit=5)[-1].strip() for line in file if line.count("/")}
    except OSError:
        import numpy

        root = os.path.dirname(numpy.__file__)
        folders = [os.path.join(root, ".dylibs"), root + ".libs"]
        paths = {entry.path for folder in folders if os.path.isdir(folder) for entry in os.scandir(folder)}
    return sorted(p for p in paths if any(name in os.path.basename(p).lower() for name in _LIBRARIES))
