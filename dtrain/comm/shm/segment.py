"""The memory that ranks share, and where everything lies in it."""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtrain.errors import DistributedError

LINE = 16                       # 64-bit words of control per rank: two cache lines
WORD = 8
TEXT = 512                      # bytes for the reason of an abort, per rank
HEADER = 1024                   # bytes for the header of a collective, per rank and parity
_STAGGER = 2112                 # slots at equal page offsets evict each other from the cache
_PRIVATE: dict[str, np.ndarray] = {}


def _up(n: int, to: int = 64) -> int:
    return -(-n // to) * to


@dataclass(frozen=True)
class Layout:
    """Offsets in bytes for ``size`` ranks, ``chunk`` bytes a slot and ``channel`` bytes between each pair.

    Control words first (line 0 is the group's, line 1 + r is rank r's), then texts, headers, slots and
    result areas (two of each a rank, used in turns), then the message channels.
    """

    size: int
    chunk: int
    channel: int

    @staticmethod
    def default(size: int, chunk: int | None = None) -> Layout:
        """A megabyte a slot, half of it for more than four ranks; channels share about 8 MiB."""
        chunk = _up(max(chunk or (2**20 if size <= 4 else 2**19), 32 * size))
        return Layout(size, chunk, min(max(8 * 2**20 // size**2, 4096), 256 * 1024))

    @property
    def slot_stride(self) -> int:
        return _up(self.chunk) + _STAGGER

    @property
    def result_stride(self) -> int:
        return _up(self.chunk // self.size + 1024) + _STAGGER

    @property
    def texts(self) -> int:
        return LINE * WORD * (self.size + 1)

    def text(self, rank: int) -> int:
        return self.texts + rank * TEXT

    def header(self, rank: int, parity: int) -> int:
        return self.texts + self.size * TEXT + (2 * rank + parity) * HEADER

    def slot(self, rank: int, parity: int) -> int:
        return self.header(self.size, 0) + (2 * rank + parity) * self.slot_stride

    def result(self, rank: int, parity: int) -> int:
        return _up(self.slot(self.size, 0)) + (2 * rank + parity) * self.result_stride

    def channel_words(self, source: int, dest: int) -> int:
        """Two lines: the sender's count of bytes written, the receiver's of bytes read."""
        return _up(self.result(self.size, 0)) + (source * self.size + dest) * 2 * LINE * WORD

    def channel_data(self, source: int, dest: int) -> int:
        return self.channel_words(self.size, 0) + (source * self.size + dest) * _up(self.channel)

    @property
    def total(self) -> int:
        return _up(self.channel_data(self.size, 0), mmap.PAGESIZE)


class Segment:
    """Memory as bytes (``array`` uint8, ``raw`` memoryview) and as 64-bit words."""

    def __init__(self, array: np.ndarray, handle: dict[str, Any], fd: int = -1) -> None:
        self.array, self.handle, self.fd = array, handle, fd
        self.raw = memoryview(array)
        self.words = self.raw.cast("Q")

    @staticmethod
    def private(size: int) -> Segment:
        """Memory for the threads of this process."""
        token = os.urandom(16).hex()
        _PRIVATE[token] = _aligned(size)
        return Segment(_PRIVATE[token], {"memory": token, "size": size})

    @staticmethod
    def shared(size: int) -> Segment:
        """Memory for processes of this node. It has no name, so nothing is left behind however they end.

        Pages are reserved at once: too little memory is an error here, not a SIGBUS in the middle of a step.
        """
        fd = os.memfd_create("dtrain", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise DistributedError(f"no room for {size / 2**20:.0f} MiB of shared memory between ranks: {error}") from None
        token = os.urandom(16)
        segment = Segment(_map(fd, size), {"pid": os.getpid(), "fd": fd, "size": size, "token": token.hex()}, fd)
        segment.raw[:16] = token
        return segment

    @staticmethod
    def attach(handle: dict[str, Any]) -> Segment:
        """The segment behind a ``handle`` that its creator published."""
        if "memory" in handle:
            return Segment(_PRIVATE[str(handle["memory"])], handle)
        path = f"/proc/{int(handle['pid'])}/fd/{int(handle['fd'])}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DistributedError(
                f"cannot open the shared memory of process {handle['pid']} ({error}); ranks of one node must run as "
                "one user and see each other's processes (one container, one PID namespace)"
            ) from None
        try:
            if os.fstat(fd).st_size != handle["size"]:
                raise DistributedError(f"the shared memory at {path} has another size than announced")
            segment = Segment(_map(fd, int(handle["size"])), handle)
        finally:
            os.close(fd)
        if segment.raw[:16].hex() != handle["token"]:
            raise DistributedError(f"the shared memory at {path} belongs to another job")
        return segment

    def unlink(self) -> None:
        """Close the way in; those who have it mapped keep it."""
        if "memory" in self.handle:
            _PRIVATE.pop(self.handle["memory"], None)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:start + size]


def _map(fd: int, size: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(fd, size, mmap.MAP_SHARED), np.uint8)
