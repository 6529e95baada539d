"""Run CUDA kernels on the CPU: compile the same source with g++ and `kernels/shim`, and launch it over NumPy memory.

    run_kernel(path_or_source, "gelu_none_forward_float32", (4,), (256,), (x, out, np.int64(n)), order="random")

Blocks run one after the other and the threads of a block in the chosen order, switching where they wait. Arguments are
checked against the kernel's parameters, which a GPU does not do: arrays by element size, scalars by size and kind.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from dtrain.backend import kernels

ORDERS = ("forward", "reverse", "random")
SHIM = Path(kernels.ROOT) / "shim"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-std=gnu++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fno-strict-aliasing")
_KERNEL = re.compile(r"\b__global__\s+void\s+(\w+)\s*\(")
_lock = threading.Lock()        # a shim library has one block; ranks that are threads take turns


class ShimError(RuntimeError):
    """The kernel does not compile on the host, or did something that is wrong on a GPU too."""


class _Argument(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("size", ctypes.c_int), ("pointee", ctypes.c_int), ("floating", ctypes.c_int)]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.POINTER(ctypes.c_uint)),
        ("block", ctypes.POINTER(ctypes.c_uint)),
        ("shared_bytes", ctypes.c_uint),
        ("arguments", ctypes.POINTER(_Argument)),
        ("count", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint64),
    ]


def run_kernel(
    source: str | Path, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *,
    order: str = "forward", seed: int = 0, shared_mem: int = 0,
) -> None:  # fmt: skip
    """Launch kernel ``name`` of a `.cu` file (a Path) or of CUDA source text (a str).

    ``args`` are NumPy arrays (of 0 dimensions too), passed as pointers to their memory, and NumPy scalars of the parameters' types. ``order`` is
    forward, reverse or random (by ``seed``), of blocks and of the threads between two waits. Raises ShimError with the
    kernel's line where it fails to compile, gets wrong arguments, or waits in a way that hangs or is undefined on a GPU.
    """
    library = load(kernels.expand(os.fspath(source)) if isinstance(source, Path) else source)
    arguments, keep = _describe(args)
    launch = _Launch(_triple(grid), _triple(block), shared_mem, arguments, len(args), ORDERS.index(order), seed)
    with _lock:
        problem = library.shim_run(name.encode(), ctypes.byref(launch))
    del keep
    if problem:
        raise ShimError(f"{name}: {problem.decode()}")


@functools.lru_cache(maxsize=None)
def load(source: str) -> ctypes.CDLL:
    """The shared library of CUDA source text, compiled unless an earlier run left it in the cache folder."""
    digest = hashlib.sha256("\0".join([source, COMPILER, *FLAGS, *_shim_text()]).encode()).hexdigest()[:24]
    path = _cache() / f"{digest}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = _compile(source, Path(folder))
            os.replace(built, path)
    library = ctypes.CDLL(os.fspath(path))
    library.shim_run.restype = ctypes.c_char_p
    library.shim_run.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Launch)]
    return library


def kernel_names(preprocessed: str) -> list[str]:
    """The kernels that preprocessed CUDA source defines."""
    return sorted(set(_KERNEL.findall(preprocessed)))


def _compile(source: str, folder: Path) -> Path:
    """Preprocess, find the kernels, add the table that launches them by name, compile."""
    unit = folder / "kernels.cpp"
    unit.write_text(f'#include "cuda_shim.h"\n{source}\n#include "launch.h"\n')
    text = _run("-E", f"-I{SHIM}", os.fspath(unit))
    entries = "".join(f'{{"{n}", [](const shim::Launch& l) {{ return shim::launch({n}, l); }}}},\n' for n in kernel_names(text))
    if not entries:
        raise ShimError('the source defines no kernel; write extern "C" __global__ void name(...)')
    whole = folder / "whole.ii"
    whole.write_text(re.sub(r"\b__global__\b", "", text) + _TAIL.replace("@entries@", entries))
    library = folder / "kernels.so"
    _run("-shared", "-o", os.fspath(library), os.fspath(whole))
    return library


_TAIL = """
# 1 "table of kernels"
static const shim::Entry shim_entries[] = {
@entries@{nullptr, nullptr}};
extern "C" const char* shim_run(const char* name, const shim::Launch* launch) {
    static std::string problem;
    problem = shim::run_named(shim_entries, name, *launch);
    return problem.c_str();
}
"""


def _run(*args: str) -> str:
    done = subprocess.run([COMPILER, *FLAGS, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise ShimError(f"the host compiler refuses the kernel:\n{done.stderr[:4000]}")
    return done.stdout


def _describe(args: Sequence[Any]) -> tuple[Any, list]:
    described, keep = (_Argument * max(len(args), 1))(), []
    for i, arg in enumerate(args):
        if isinstance(arg, np.generic):
            value, pointee = np.array(arg), 0
        elif isinstance(arg, np.ndarray):
            value, pointee = np.array(arg.ctypes.data, dtype=np.uint64), arg.itemsize
        else:
            raise ShimError(f"argument {i} is a {type(arg).__name__}; pass NumPy arrays and scalars")
        keep.append(value)
        described[i] = _Argument(value.ctypes.data, value.itemsize, pointee, value.dtype.kind == "f")
    return described, keep


def _triple(size: Sequence[int]) -> Any:
    sizes = [*size, 1, 1, 1][: max(3, len(size))]
    if len(sizes) != 3 or not all(0 <= int(n) < 2**32 for n in sizes):
        raise ShimError(f"grid and block are 1 to 3 numbers, got {tuple(size)}")
    return (ctypes.c_uint * 3)(*map(int, sizes))


@functools.lru_cache(maxsize=None)
def _shim_text() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted(SHIM.glob("*.h")))


@functools.lru_cache(maxsize=None)
def _cache() -> Path:
    """A folder of this user's for compiled kernels, kept between runs; a fresh one where its name is taken by others."""
    path = Path(tempfile.gettempdir()) / f"dtrain-shim-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or path.is_symlink():
        return Path(tempfile.mkdtemp(prefix="dtrain-shim-"))
    return path
