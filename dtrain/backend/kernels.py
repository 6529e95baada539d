"""CUDA kernels: the sources in `kernels/cuda`, compiled by CuPy (NVRTC) at first use and kept in CuPy's cache on disk.

The functions mirror those of `native`: None, nothing done, where the arrays are not what a kernel computes on.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import numpy as np

from dtrain.backend import cuda

ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "kernels")
OPTIONS = ("--std=c++17",)
_THREADS, _MAX_BLOCKS = 256, 16384        # of one-dimensional kernels, which loop where the grid is too small
_DTYPES = frozenset({"float32", "float64", "float16", "bfloat16"})
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def gelu(x: Any, approximate: str = "none") -> Any:
    """GELU of a C-contiguous CuPy array of floating dtype as a new array; ``approximate`` is ``none`` or ``tanh``."""
    return _elementwise("gelu", f"gelu_{approximate}_forward", x)


def gelu_backward(grad: Any, x: Any, approximate: str = "none") -> Any:
    """``grad`` times the derivative of `gelu` at ``x``; both of one shape and dtype. A strided gradient is copied."""
    if not grad.flags.c_contiguous and x.flags.c_contiguous:
        grad = cuda.cupy().ascontiguousarray(grad)
    return _elementwise("gelu", f"gelu_{approximate}_backward", grad, x)


def _elementwise(file: str, entry: str, *arrays: Any) -> Any:
    """Run ``entry`` of ``file`` for the dtype of the arrays, which must be alike and contiguous."""
    like = arrays[-1]
    dtype = like.dtype.name
    if dtype not in _DTYPES or not all(a.flags.c_contiguous and a.dtype == like.dtype and a.shape == like.shape for a in arrays):
        return None
    out = cuda.cupy().empty_like(like)
    if like.size:
        get(file).launch_elementwise(f"{entry}_{dtype}", like.size, *arrays, out)
    return out


class Kernels:
    """The kernels of one source file, by entry point."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._module = cuda.cupy().RawModule(code=source(name), options=OPTIONS)
        self._functions: dict[str, Any] = {}

    def launch(self, entry: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, shared_bytes: int = 0) -> None:
        """Start ``entry`` on CuPy's current device and stream; scalars must be NumPy's, of the C parameter's size."""
        function = self._functions.get(entry)
        if function is None:
            function = self._functions[entry] = self._module.get_function(entry)
        function(grid, block, args, shared_mem=shared_bytes)

    def launch_elementwise(self, entry: str, n: int, *arrays: Any) -> None:
        """Start ``entry(*arrays, n)`` with a thread an element, up to a limit beyond which threads loop."""
        blocks = min(-(-n // _THREADS), _MAX_BLOCKS)
        self.launch(entry, (blocks,), (_THREADS,), (*arrays, np.int64(n)))


@functools.lru_cache(maxsize=None)
def get(name: str) -> Kernels:
    """The kernels of ``kernels/cuda/<name>.cu``, compiled when first launched on a device."""
    return Kernels(name)


def source(name: str) -> str:
    """The text of ``kernels/cuda/<name>.cu`` with our own headers in it, so that caches notice when one of them changes."""
    return expand(os.path.join(ROOT, "cuda", f"{name}.cu"))


def expand(path: str) -> str:
    """The text of a source file, each ``#include "..."`` replaced by that file, once; line numbers stay right.

    An included file lies beside the one that includes it, or below `kernels`.
    """
    return "".join(_expand(os.path.normpath(path), set()))


def _expand(path: str, seen: set[str]) -> list[str]:
    seen.add(path)
    label = os.path.relpath(path, ROOT) if path.startswith(ROOT) else os.path.basename(path)
    parts = [f'#line 1 "{label}"\n']
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            include = _INCLUDE.match(line)
            if include is None:
                parts.append(line if line.strip() != "#pragma once" else "\n")
                continue
            beside = os.path.join(os.path.dirname(path), include[1])
            header = os.path.normpath(beside if os.path.exists(beside) else os.path.join(ROOT, include[1]))
            if header not in seen:
                parts += _expand(header, seen)
            parts.append(f'#line {number + 1} "{label}"\n')
    return parts
