"""Device memory: blocks with made-up addresses, the pool with its figures, allocators."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import Any, Callable, Iterator

import numpy as np

from tests.standin import devices
from tests.standin.devices import Key

_addresses = itertools.count(0x7E_0000_0000_0000, 1 << 32)  # no address of this process: using one on the host fails


class OutOfMemoryError(MemoryError):
    """As CuPy's, when the pool's limit or the device's memory is reached."""


class BaseMemory:
    """A block of device memory, and who wrote and read it last."""

    def __init__(self, size: int, device_id: int) -> None:
        self.ptr, self.size, self.device_id = next(_addresses) if size else 0, size, device_id
        self.writer: tuple[Key, int] | None = None
        self.readers: dict[Key, int] = {}
        self.buffer: Any = None  # the NumPy array that holds the bytes, once there is one

    @property
    def device(self) -> devices.Device:
        return devices.Device(self.device_id)


class PooledMemory(BaseMemory):
    """A block that goes back to its pool when nobody holds it."""

    def __init__(self, size: int, device_id: int, pool: MemoryPool) -> None:
        super().__init__(size, device_id)
        self._pool = pool

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._pool.used[self.device_id] -= self.size


class MemoryPointer:
    """cupy.cuda.MemoryPointer: a block and an offset in bytes."""

    def __init__(self, mem: BaseMemory, offset: int) -> None:
        self.mem, self._offset = mem, offset
        self.ptr, self.device_id = mem.ptr + offset, mem.device_id

    @property
    def device(self) -> devices.Device:
        return self.mem.device

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self._offset + offset)

    def __int__(self) -> int:
        return self.ptr


class MemoryPool:
    """cupy.cuda.MemoryPool: rounds up to 512 bytes and keeps what is freed."""

    def __init__(self, allocator: Any = None) -> None:
        self.used = [0] * devices.COUNT
        self.held = [0] * devices.COUNT
        self._limit = [0] * devices.COUNT

    def malloc(self, size: int) -> MemoryPointer:
        device = devices.current()
        size = -(-size // 512) * 512
        if size == 0:
            return MemoryPointer(BaseMemory(0, device), 0)
        held = max(self.held[device], self.used[device] + size)
        limit = self._limit[device] or devices.TOTAL_MEMORY
        if held > limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {self.held[device]:,} bytes, limit set to: {limit:,} bytes)."
            )
        self.held[device] = held
        self.used[device] += size
        return MemoryPointer(PooledMemory(size, device, self), 0)

    def used_bytes(self) -> int:
        return self.used[devices.current()]

    def total_bytes(self) -> int:
        return self.held[devices.current()]

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def free_all_blocks(self, stream: Any = None) -> None:
        self.held[devices.current()] = self.used[devices.current()]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self._limit[devices.current()] = int(fraction * devices.TOTAL_MEMORY) if fraction is not None else int(size or 0)

    def get_limit(self) -> int:
        return self._limit[devices.current()]


class PinnedMemoryPool:
    """cupy.cuda.PinnedMemoryPool; nothing is pinned here."""

    def free_all_blocks(self) -> None:
        pass

    def n_free_blocks(self) -> int:
        return 0


pool = MemoryPool()
pinned_pool = PinnedMemoryPool()
_allocator: Callable[[int], MemoryPointer] = pool.malloc


def get_allocator() -> Callable[[int], MemoryPointer]:
    return _allocator


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    global _allocator
    _allocator = pool.malloc if allocator is None else allocator


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    before = _allocator
    set_allocator(allocator)
    try:
        yield
    finally:
        set_allocator(before)


def alloc(size: int) -> MemoryPointer:
    """cupy.cuda.alloc: uninitialised memory, filled with 0xFF (NaN as a float) so that nobody relies on zeros."""
    pointer = _allocator(size)
    pointer.mem.buffer = np.full(size, 0xFF, np.uint8)
    return pointer


def block(size: int) -> BaseMemory:
    """A new block of the current device through the current allocator."""
    return _allocator(size).mem
