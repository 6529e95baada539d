"""A strict stand-in for CuPy, so that the GPU path runs on machines without a GPU.

``install()`` puts it into ``sys.modules`` as ``cupy`` (and ``cupyx``), before anything loads the real one. It computes
with NumPy but behaves as CuPy does where that matters: nothing converts to NumPy silently, arrays live on numbered
devices, streams race unless ordered, an index out of range wraps around, and only names CuPy has are there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

_CONSTANTS = """bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 intp newaxis pi e inf
nan dtype generic number integer floating inexact signedinteger unsignedinteger complexfloating""".split()


class Module(ModuleType):
    """A module that says whether a missing name is missing in CuPy or only here."""

    def __getattr__(self, name: str) -> Any:
        from tests.standin import surface

        if name.startswith("__"):
            raise AttributeError(name)
        known = surface.RECORD.get(self.__name__, {})
        why = "CuPy has it, the stand-in not yet: add it in tests/standin" if name in known else f"CuPy {surface.VERSION} has no such name"
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} ({why})")


def install() -> ModuleType:
    """Make ``import cupy`` give the stand-in. Raises RuntimeError if the real CuPy is loaded already."""
    loaded = sys.modules.get("cupy")
    if loaded is not None:
        if isinstance(loaded, Module):
            return loaded
        raise RuntimeError("the real CuPy is loaded already; install the stand-in first")
    for name, contents in build().items():
        module = Module(name)
        module.__dict__.update(contents)
        module.__path__ = []
        sys.modules[name] = module
    for name in list(sys.modules):
        parent, _, child = name.rpartition(".")
        if isinstance(sys.modules[name], Module) and parent in sys.modules:
            sys.modules[parent].__dict__[child] = sys.modules[name]
    return sys.modules["cupy"]


def build() -> dict[str, dict[str, Any]]:
    """Contents of each module by name."""
    from tests.standin import array, devices, draws, functions, memory, raw, runtime, surface, ufuncs

    linalg = {n: functions.delegated(np.linalg, "cupy.linalg", n) for n in ("norm", "inv", "det", "slogdet", "solve", "cholesky", "qr", "svd", "eigh")}
    modules = {
        "cupy": {**{n: getattr(np, n) for n in _CONSTANTS}, **ufuncs.by_name, **functions.FUNCTIONS, "ndarray": array.ndarray,
                 "ufunc": ufuncs.ufunc, "RawKernel": raw.RawKernel, "RawModule": raw.RawModule,
                 "get_default_memory_pool": lambda: memory.pool, "get_default_pinned_memory_pool": lambda: memory.pinned_pool},
        "cupy.cuda": {"Device": devices.Device, "Stream": devices.Stream, "Event": devices.Event, "get_elapsed_time": devices.get_elapsed_time,
                      "get_current_stream": devices.get_current_stream, "MemoryPool": memory.MemoryPool, "MemoryPointer": memory.MemoryPointer,
                      "PinnedMemoryPool": memory.PinnedMemoryPool, "BaseMemory": memory.BaseMemory, "alloc": memory.alloc,
                      "get_allocator": memory.get_allocator, "set_allocator": memory.set_allocator,
                      "using_allocator": memory.using_allocator, "is_available": lambda: True, "get_device_id": devices.current},
        "cupy.cuda.memory": {"OutOfMemoryError": memory.OutOfMemoryError, "MemoryPool": memory.MemoryPool},
        "cupy.cuda.runtime": runtime.CONTENTS,
        "cupy.cuda.nvrtc": {"getVersion": lambda: (12, 9)},
        "cupy.cuda.device": {"get_cublas_handle": lambda: 1},
        "cupy.cuda.cublas": {"create": lambda: 1},
        "cupy.random": draws.CONTENTS,
        "cupy.linalg": linalg,
        "cupyx": {"scatter_add": lambda a, slices, value: a._scatter_op(slices, value, "add"),
                  "rsqrt": lambda x: 1 / functions.FUNCTIONS["asarray"](ufuncs.by_name["sqrt"](x))},
    }  # fmt: skip
    modules["cupy"]["__version__"] = surface.VERSION
    return modules
