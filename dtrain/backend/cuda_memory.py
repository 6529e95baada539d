"""How much GPU memory arrays use and CuPy's pool holds, per device, with true peaks.

The figures are those of CuPy's default pool, which rounds every allocation up to 512 bytes. CuPy keeps no peaks, so
each allocation goes through ``track_peak``'s function, which reads the pool's two counters afterwards: memory only grows
by allocations, hence the maximum seen there is the true one.
"""

from __future__ import annotations

from typing import Any

from dtrain.backend import cuda
from dtrain.errors import UnsupportedError

_peak_used: list[int] | None = None  # per device; None while another allocator is installed
_peak_held: list[int] = []


def track_peak(module: Any, count: int) -> None:
    """Put the counting allocator before CuPy's default pool, unless the user has installed an allocator."""
    global _peak_used, _peak_held
    pool = module.get_default_memory_pool()
    if module.cuda.get_allocator() != pool.malloc:
        return
    used, held = [0] * count, [0] * count

    def allocate(size: int) -> Any:
        pointer = pool.malloc(size)
        index = pointer.device_id
        now = pool.used_bytes()
        if now > used[index]:
            used[index] = now
        now = pool.total_bytes()
        if now > held[index]:
            held[index] = now
        return pointer

    module.cuda.set_allocator(allocate)
    _peak_used, _peak_held = used, held


def memory_allocated(where: Any = None) -> int:
    """Bytes of the device's memory that arrays use now."""
    return _pool_figure(where, "used_bytes")


def memory_reserved(where: Any = None) -> int:
    """Bytes of the device's memory that the pool holds, in use or kept for reuse."""
    return _pool_figure(where, "total_bytes")


def _pool_figure(where: Any, name: str) -> int:
    index = cuda.index_of(where)
    with cuda.on(index):
        return int(getattr(cuda.cupy().get_default_memory_pool(), name)())


def max_memory_allocated(where: Any = None) -> int:
    """The most bytes that arrays used at one time since the start or ``reset_peak_memory_stats``."""
    return _peaks(where)[0]


def max_memory_reserved(where: Any = None) -> int:
    """The most bytes that the pool held at one time since the start or ``reset_peak_memory_stats``."""
    return _peaks(where)[1]


def _peaks(where: Any) -> tuple[int, int]:
    index = cuda.index_of(where)
    if _peak_used is None:
        raise UnsupportedError("peak memory is not known: another CuPy allocator was installed before dtrain first used CUDA")
    return _peak_used[index], _peak_held[index]


def reset_peak_memory_stats(where: Any = None) -> None:
    """Start the peaks afresh at what is used and held now."""
    index = cuda.index_of(where)
    _peaks(index)
    assert _peak_used is not None
    _peak_used[index], _peak_held[index] = memory_allocated(index), memory_reserved(index)


def empty_cache() -> None:
    """Give the pool's unused memory of every device, and its unused pinned host memory, back to the system."""
    if not cuda.is_available():
        return
    module = cuda.cupy()
    for index in range(cuda.device_count()):
        with cuda.on(index):
            module.get_default_memory_pool().free_all_blocks()
    module.get_default_pinned_memory_pool().free_all_blocks()


def mem_get_info(where: Any = None) -> tuple[int, int]:
    """(free, total) bytes of the device, all processes together."""
    free, total = cuda.on(cuda.index_of(where)).mem_info
    return int(free), int(total)
