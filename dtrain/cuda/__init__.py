"""PyTorch's ``torch.cuda``: devices, streams, events and memory figures.

Importing it loads no CuPy. Where CUDA cannot be used, ``is_available()`` is False, ``device_count()`` is 0, and what
needs a device raises DeviceError saying what is missing.
"""

from __future__ import annotations

import importlib
from typing import Any

from dtrain.backend import cuda as _cuda
from dtrain.backend import state as _state
from dtrain.backend.cuda import DeviceProperties, current_device, device_count, is_available, set_device, synchronize
from dtrain.backend.cuda_memory import (
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    reset_peak_memory_stats,
)
from dtrain.backend.cuda_streams import Event, Stream, current_stream, default_stream, set_stream
from dtrain.backend.cuda_streams import use_stream as stream
from dtrain.cuda.random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)

__all__ = [
    "DeviceProperties", "Event", "Stream", "can_device_access_peer", "current_device", "current_stream", "default_stream", "device",
    "device_count", "empty_cache", "get_arch_list", "get_device_capability", "get_device_name", "get_device_properties", "get_rng_state",
    "get_rng_state_all", "init", "initial_seed", "is_available", "is_bf16_supported", "is_initialized", "manual_seed", "manual_seed_all",
    "max_memory_allocated", "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved", "reset_peak_memory_stats",
    "seed", "seed_all", "set_device", "set_rng_state", "set_rng_state_all", "set_stream", "stream", "synchronize",
]  # fmt: skip


class device:
    """Context in which ``cuda`` means the given device; None or a negative number changes nothing."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None or (isinstance(device, int) and device < 0) else _cuda.index_of(device)

    def __enter__(self) -> None:
        if self.idx >= 0:
            self._before = _state.local.rank, _state.local.rank.cuda_device
            self._context = _cuda.on(self.idx)
            self._context.__enter__()
            _state.local.rank.cuda_device = self.idx

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            rank, rank.cuda_device = self._before  # type: ignore[misc]
            self._context.__exit__(*exc)


def init() -> None:
    """Load CuPy now. Raises DeviceError where CUDA cannot be used."""
    _cuda.cupy()


def is_initialized() -> bool:
    """Has this process used CUDA?"""
    return _cuda.is_initialized()


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, compute capability, memory (bytes) and multiprocessors; by default of the current device."""
    return _cuda.properties(device)


def get_device_name(device: Any = None) -> str:
    """The device's name, as ``NVIDIA H200``."""
    return _cuda.properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(major, minor) compute capability."""
    found = _cuda.properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """Architectures of the visible devices, as ``sm_90``; kernels are compiled for them when first used."""
    found = {get_device_capability(n) for n in range(device_count())}
    return [f"sm_{major}{minor}" for major, minor in sorted(found)]


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Does the current device compute in bfloat16: in hardware from capability 8.0 on, before that by emulation."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Can ``device`` read the other GPU's memory directly?"""
    one, other = _cuda.index_of(device), _cuda.index_of(peer_device)
    return one != other and bool(_cuda.cupy().cuda.runtime.deviceCanAccessPeer(one, other))


def __getattr__(name: str) -> Any:
    if name == "amp":  # above this namespace: loaded when asked for
        return importlib.import_module("dtrain.cuda.amp")
    raise AttributeError(f"module 'dtrain.cuda' has no attribute {name!r}")
