"""Shared memory between a loader and one of its workers.

The worker owns an Arena of segments (anonymous memory files, so nothing is left behind by a kill and the size of
/dev/shm does not matter), fills one and names it in a message; the loader's arrays are views of the same pages. When the
last such array dies the loader gives the segment back and the worker fills it again: a page is faulted in once,
not once a batch.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections import deque
from typing import Any

import numpy as np

LARGE = 4096                        # bytes from which an array is worth a segment; smaller ones travel in the message
KEEP = 16                           # free segments a worker holds on to
MAX_LENT = 512                      # segments a loader holds before it starts to copy: each is a mapping of the process

arena: "Arena | None" = None        # this process's, if it is a worker


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array; in a worker process, if it is large, in memory the loader can see."""
    if arena is None or dtype.hasobject or math.prod(shape) * dtype.itemsize < LARGE:
        return np.empty(shape, dtype)
    return arena.empty(shape, dtype)


class Segment:
    """A mapping of ``size`` bytes. ``fd`` is open until the other side has been sent it."""

    __slots__ = ("id", "size", "memory", "fd", "lent", "viewed")

    def __init__(self, id: int, size: int, fd: int) -> None:
        self.id, self.size, self.fd = id, size, fd
        self.memory = mmap.mmap(fd, size)
        self.lent = self.viewed = False              # does the loader, does this process hold arrays in it?


class Arena:
    """The worker's side: segments handed out, lent and returned."""

    def __init__(self) -> None:
        self.new: list[Segment] = []                 # to be announced with their descriptors
        self.dropped: list[int] = []                 # to be forgotten by the loader
        self._segments: dict[int, Segment] = {}
        self._open: dict[int, Segment] = {}          # by address: handed out since the last message
        self._dead: deque[int] = deque()             # ids whose arrays here have died
        self._views: dict[int, weakref.ref] = {}
        self._count = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An uninitialised array in a segment of its own."""
        segment = self.take(math.prod(shape) * dtype.itemsize)
        whole = np.frombuffer(segment.memory, np.uint8)
        dead, number = self._dead, segment.id
        self._views[number] = weakref.ref(whole, lambda _: dead.append(number))
        segment.viewed = True
        self._open[whole.ctypes.data] = segment
        return np.frombuffer(whole, dtype, math.prod(shape)).reshape(shape)

    def take(self, nbytes: int) -> Segment:
        """A free segment of at least ``nbytes``: the smallest that fits without wasting half, or a new one."""
        while self._dead:
            number = self._dead.popleft()
            self._segments[number].viewed = False
            del self._views[number]
        fitting = [s for s in self._segments.values() if not (s.lent or s.viewed) and nbytes <= s.size <= 2 * nbytes + (1 << 16)]
        segment = min(fitting, key=lambda s: s.size, default=None) or self._make(nbytes)
        segment.lent = True                          # until the loader returns it, or `message_done` finds it unused
        return segment

    def _make(self, nbytes: int) -> Segment:
        free = [s for s in self._segments.values() if not (s.lent or s.viewed)]
        for s in free[: max(0, len(free) - KEEP)]:
            del self._segments[s.id]
            self.dropped.append(s.id)
        size = -(-nbytes // (1 << 16)) * (1 << 16)
        self._count += 1
        segment = Segment(self._count, size, _memory_file(size))
        self._segments[segment.id] = segment
        self.new.append(segment)
        return segment

    def find(self, data: np.ndarray) -> int | None:
        """The segment whose start is the start of ``data``, handed out since the last message."""
        segment = self._open.get(data.ctypes.data)
        return segment.id if segment is not None and data.nbytes <= segment.size else None

    def message_done(self, used: set[int]) -> None:
        """Segments handed out for this message but not in it are free once their arrays here have died."""
        for segment in self._open.values():
            segment.lent = segment.id in used
        self._open.clear()

    def give_back(self, ids: list[int]) -> None:
        """The loader no longer uses these."""
        for number in ids:
            if number in self._segments:
                self._segments[number].lent = False


class Inbox:
    """The loader's side: the worker's segments, mapped, and those to give back."""

    def __init__(self) -> None:
        self.returned: deque[int] = deque()
        self._memory: dict[int, mmap.mmap] = {}
        self._lent: dict[int, weakref.ref] = {}

    def add(self, id: int, size: int, fd: int) -> None:
        """Map a segment the worker announced; closes ``fd``."""
        try:
            self._memory[id] = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def drop(self, id: int) -> None:
        """Forget a segment; its pages go when the last array in them does."""
        del self._memory[id]

    def open(self, id: int) -> np.ndarray:
        """Segment ``id`` as bytes, given back when this array and all views of it have died."""
        whole = np.frombuffer(self._memory[id], np.uint8)
        if len(self._lent) >= MAX_LENT:
            self.returned.append(id)
            return whole.copy()
        lent, returned = self._lent, self.returned

        def died(_: Any) -> None:
            lent.pop(id, None)
            returned.append(id)

        lent[id] = weakref.ref(whole, died)
        return whole

    def take_returned(self) -> list[int]:
        """The ids to tell the worker about, once."""
        return [self.returned.popleft() for _ in range(len(self.returned))]


def _memory_file(size: int) -> int:
    """A descriptor of ``size`` bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("dtrain-loader", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return fd
    with tempfile.TemporaryFile() as f:
        os.posix_fallocate(f.fileno(), 0, size) if hasattr(os, "posix_fallocate") else f.truncate(size)
        return os.dup(f.fileno())
