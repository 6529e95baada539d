"""cupy.RawModule and RawKernel: the CUDA source runs on the CPU through the host shim of ``kernels/shim``."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.standin.array import ndarray
from tests.standin.devices import launch

MAX_THREADS = 1024
_launches = itertools.count()


class RawKernel:
    """A kernel of CUDA source text; called with grid, block and arguments."""

    def __init__(self, code: str, name: str, options: tuple = (), backend: str = "nvrtc", **more: Any) -> None:
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self.code, self.name, self.options, self.backend = code, name, options, backend

    def __call__(self, grid: tuple, block: tuple, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
        if not (isinstance(grid, tuple) and isinstance(block, tuple)):
            raise TypeError("grid and block are tuples of int")
        if np.prod(block, dtype=np.int64) > MAX_THREADS:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: a block has at most {MAX_THREADS} threads, got {block}")
        arrays = [a for a in args if isinstance(a, ndarray)]
        launch(arrays, arrays, stream)
        self._run(grid, block, [_argument(a) for a in args], shared_mem)

    def _run(self, grid: tuple, block: tuple, args: list[Any], shared_mem: int) -> None:
        from tests.kernels import shim_build

        seed = next(_launches)  # another order of blocks and threads each time, as a GPU has
        order = shim_build.ORDERS[seed % len(shim_build.ORDERS)]
        shim_build.run_kernel(self.code, self.name, grid, block, args, order=order, seed=seed, shared_mem=shared_mem)


def _argument(value: Any) -> Any:
    """Arrays as the NumPy memory they have, scalars with the C type CuPy gives them."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray) and value.size != 1:
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {value.shape} as a kernel parameter. Pass a cupy.ndarray instead."
        )
    if isinstance(value, (np.generic, np.ndarray)):
        return value if isinstance(value, np.generic) else value.reshape(())[()]
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64), (complex, np.complex128)):
        if isinstance(value, kind):
            return dtype(value)
    raise TypeError(f"Unsupported type {type(value)}")


class RawModule:
    """CUDA source with several kernels."""

    def __init__(self, *, code: Any = None, path: Any = None, options: tuple = (), backend: str = "nvrtc",
                 translate_cucomplex: bool = False, enable_cooperative_groups: bool = False, name_expressions: Any = None,
                 jitify: Any = None) -> None:  # fmt: skip
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments should be given.")
        if code is None:
            raise TypeError("the stand-in runs CUDA source text, no compiled file")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self.code, self.options, self.backend = code, options, backend

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self.code, name, self.options, self.backend)
