"""CUDA devices through CuPy, loaded when first asked for; here alone is decided whether CUDA can be used.

The current CUDA device belongs to the rank, so that every thread of a rank agrees on what ``cuda`` means. CuPy keeps
one per thread: work on an array therefore runs inside ``on(index)``, and nothing relies on CuPy's own current device.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
from typing import Any, NamedTuple

import numpy as np

from dtrain.backend import state
from dtrain.errors import DeviceError

_cupy: Any = None
_count = 0
_forked = False
_NOTHING = contextlib.nullcontext()
_CPU_INSTEAD = "or use device='cpu'"


def cupy() -> Any:
    """The CuPy module, on a machine where it works.

    Raises DeviceError where CUDA cannot be used, saying which part is missing and how to get it.
    """
    global _cupy, _count
    if _cupy is None:
        module, count, problem = _look()
        if problem:
            raise DeviceError(f"CUDA was asked for, but {problem}")
        from dtrain.backend import cuda_memory

        cuda_memory.track_peak(module, count)
        _cupy, _count = module, count
    return _cupy


def why_not() -> str | None:
    """What keeps CUDA from being used, as a sentence with its remedy; None when it can be used."""
    return None if _cupy is not None else _look()[2]


def is_available() -> bool:
    """Can CUDA be used here: CuPy, a driver, at least one GPU and the CUDA libraries. Never raises."""
    return why_not() is None


def is_initialized() -> bool:
    """Has this process used CUDA?"""
    return _cupy is not None


def device_count() -> int:
    """Number of usable CUDA devices, 0 where CUDA cannot be used."""
    if _cupy is not None:
        return _count
    _, count, problem = _look()
    return 0 if problem else count


def _look() -> tuple[Any, int, str | None]:
    """(CuPy, number of devices, what is wrong or None)."""
    if _forked:
        return None, 0, (
            "this process was forked from one that already used CUDA, which no child can go on using; start it with "
            "multiprocessing's 'spawn' method (DataLoader: multiprocessing_context='spawn'), or touch CUDA only in the child"
        )
    if "cupy" not in sys.modules:
        if importlib.util.find_spec("cupy") is None:
            return None, 0, f"CuPy is not installed; pip install 'dtrain[cuda12]', {_CPU_INSTEAD}"
        if not _has_driver():
            return None, 0, (
                "this machine has no NVIDIA driver (libcuda.so.1 is not found); install the driver, in a container start it "
                f"with --gpus all, {_CPU_INSTEAD}"
            )
    try:
        import cupy as module
    except Exception as error:  # a broken wheel raises anything: say so instead of failing deep inside
        return None, 0, f"CuPy is installed but does not import ({_first_line(error)}); reinstall with pip install 'dtrain[cuda12]'"
    count, problem = _count_devices(module)
    if problem is None:
        problem = _missing_library(module)
    return module, count, problem


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _count_devices(module: Any) -> tuple[int, str | None]:
    runtime = module.cuda.runtime
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        text = _first_line(error)
        if "NoDevice" in text:
            return 0, f"the driver shows no GPU{hidden}; check nvidia-smi, {_CPU_INSTEAD}"
        if "InsufficientDriver" in text:
            return 0, _driver_problem(runtime)
        return 0, f"the CUDA runtime failed to start ({text}){hidden}; check nvidia-smi, {_CPU_INSTEAD}"
    return count, None if count else f"the driver shows no GPU{hidden}; check nvidia-smi, {_CPU_INSTEAD}"


def _driver_problem(runtime: Any) -> str:
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return f"this machine has no NVIDIA driver; install it, in a container start it with --gpus all, {_CPU_INSTEAD}"
    return (
        f"the NVIDIA driver is too old: it supports CUDA {_version(driver)}, this CuPy was built for {_version(needed)}; "
        f"update the driver, install the CuPy wheel of the driver's version, {_CPU_INSTEAD}"
    )


def _missing_library(module: Any) -> str | None:
    """The compiler (every elementwise kernel needs it) and cuBLAS (matmul) are found when first used: look now."""
    for name, probe in (("NVRTC", lambda: module.cuda.nvrtc.getVersion()), ("cuBLAS", lambda: module.cuda.cublas.create)):
        try:
            probe()
        except Exception as error:
            major = module.cuda.runtime.runtimeGetVersion() // 1000
            return (
                f"CuPy finds a GPU but not the {name} library ({_first_line(error)}); "
                f"pip install 'cupy-cuda{major}x[ctk]' brings the CUDA libraries"
            )
    return None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _after_fork() -> None:
    global _forked, _cupy
    _forked, _cupy = _forked or _cupy is not None, None


os.register_at_fork(after_in_child=_after_fork)


def check_index(index: int | None) -> int:
    """``index`` if there is such a CUDA device, the current one for None. Raises DeviceError otherwise."""
    cupy()
    if index is None:
        return current_device()
    if index >= _count:
        there = ", ".join(f"cuda:{n}" for n in range(_count))
        raise DeviceError(f"cuda:{index} was asked for, but this process sees {_count} CUDA device(s): {there}")
    return index


def index_of(where: Any) -> int:
    """The number of the CUDA device meant by ``where``: None, a number, a string or a device."""
    from dtrain.backend.device import device

    if where is None:
        return current_device()
    where = device(where)
    if where.type != "cuda":
        raise DeviceError(f"expected a CUDA device, got {where}")
    return check_index(where.index)


def current_device() -> int:
    """The number of this rank's current CUDA device."""
    cupy()
    return state.local.rank.cuda_device


def set_device(where: Any) -> None:
    """Make ``where`` the CUDA device that ``cuda`` means to this rank, in all its threads."""
    index = index_of(where)
    cupy().cuda.Device(index).use()
    state.local.rank.cuda_device = index


def on(index: int) -> Any:
    """A context in which this thread's CuPy calls run on device ``index``."""
    return cupy().cuda.Device(index)


def guard(arrays: Any) -> Any:
    """A context in which this thread's CuPy calls run where the CuPy arrays among ``arrays`` are.

    Raises DeviceError if they are on several devices: with peer access CuPy would compute, slowly and with a warning.
    """
    module = cupy()
    found = -1
    for array in arrays:
        if array.__class__ is module.ndarray:
            index = array.data.device_id
            if found < 0:
                found = index
            elif index != found:
                raise DeviceError(f"expected all tensors on one device, got cuda:{found} and cuda:{index}; move them with .to(device)")
    return _NOTHING if found < 0 or found == module.cuda.runtime.getDevice() else on(found)


def synchronize(where: Any = None) -> None:
    """Wait until all work on the device, by default the current one, is done."""
    cupy().cuda.Device(index_of(where)).synchronize()


def to_cpu(array: Any) -> np.ndarray:
    """A NumPy copy of a CuPy array, after the work queued on the current stream."""
    with array.device:
        return cupy().asnumpy(array)


def to_cuda(array: Any, index: int, non_blocking: bool = False) -> Any:
    """A copy of a NumPy or CuPy array on CUDA device ``index``.

    ``non_blocking`` lets a copy from NumPy go on after the call; the source must then stay unchanged.
    """
    module = cupy()
    if isinstance(array, module.ndarray):
        return _peer_copy(module, array, index)
    with on(index):
        return module.asarray(array, blocking=not non_blocking)


def _peer_copy(module: Any, array: Any, index: int) -> Any:
    """Copy between GPUs, after the source stream's work and before whatever it does next."""
    with array.device:
        source = module.cuda.get_current_stream()
        ready = source.record(module.cuda.Event(disable_timing=True))
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = module.ascontiguousarray(array)  # CuPy copies only contiguous memory between devices
            ready = source.record(ready)
    with on(index):
        target = module.cuda.get_current_stream()
        target.wait_event(ready)
        copied = array.copy(order="K")
        done = target.record(module.cuda.Event(disable_timing=True))
    with array.device:
        source.wait_event(done)
    return copied


class DeviceProperties(NamedTuple):
    """What is known of a CUDA device; memory in bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int


def properties(where: Any = None) -> DeviceProperties:
    """Name, compute capability, memory (bytes) and multiprocessors of a device, by default the current one."""
    raw = cupy().cuda.runtime.getDeviceProperties(index_of(where))
    name = raw["name"].decode() if isinstance(raw["name"], bytes) else raw["name"]
    return DeviceProperties(name, raw["major"], raw["minor"], raw["totalGlobalMem"], raw["multiProcessorCount"])
