"""Numbered devices, streams and events, and the clock by which unordered access to memory is noticed.

Everything runs at once, on the CPU. What a real GPU may reorder is followed with vector clocks: each stream counts the
work given to it and remembers how far it has seen every other stream (through events, the default stream's implicit
ordering, or the host having waited). Reading what another stream wrote, or writing what another stream reads or wrote,
without such an order raises OrderError, which on a GPU would be a race.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from typing import Any, Iterable

COUNT = 2  # devices the stand-in pretends to have
TOTAL_MEMORY = 16 << 30  # bytes of each

Key = tuple[int, int]  # (device, stream pointer)


class CUDARuntimeError(RuntimeError):
    """As CuPy's: ``status`` is CUDA's number of the error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OrderError(AssertionError):
    """Two streams touch the same memory without an order between them: a race on a real GPU."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.device = 0
        self.stack: list[int] = []
        self.streams: dict[int, Stream] = {}
        self.stream_stack: list[tuple[int, Stream | None]] = []


thread = _Thread()


def current() -> int:
    return thread.device


def set_device(index: int) -> None:
    if not 0 <= index < COUNT:
        raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
    thread.device = index


class Device:
    """cupy.cuda.Device."""

    def __init__(self, device: Any = None) -> None:
        self.id = current() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        thread.stack.append(thread.device)
        set_device(self.id)
        return self

    def __exit__(self, *exc: object) -> None:
        thread.device = thread.stack.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> Device:
        set_device(self.id)
        return self

    def synchronize(self) -> None:
        set_device_check(self.id)
        finish(_retired[self.id])
        for timeline in list(_timelines.values()):
            if timeline.key[0] == self.id:
                finish(timeline.snapshot())

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        from tests.standin import memory

        set_device_check(self.id)
        return TOTAL_MEMORY - memory.pool.held[self.id], TOTAL_MEMORY


def set_device_check(index: int) -> None:
    if not 0 <= index < COUNT:
        raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")


class Timeline:
    """How far one stream has got, and how far it has seen the others."""

    def __init__(self, key: Key, blocking: bool) -> None:
        self.key, self.blocking, self.n = key, blocking, 0
        self.seen: dict[Key, int] = {}

    def snapshot(self) -> dict[Key, int]:
        return {**self.seen, self.key: self.n}

    def learn(self, others: dict[Key, int]) -> None:
        for key, n in others.items():
            if self.seen.get(key, 0) < n:
                self.seen[key] = n

    def knows(self, key: Key, n: int) -> bool:
        return key == self.key or self.seen.get(key, 0) >= n or _finished.get(key, 0) >= n


_lock = threading.RLock()
_finished: dict[Key, int] = {}  # work the host has waited for
_timelines: dict[Key, Timeline] = {(d, 0): Timeline((d, 0), True) for d in range(COUNT)}
_retired: list[dict[Key, int]] = [{} for _ in range(COUNT)]  # last work of streams that are gone
_pointers = itertools.count(0x5000, 16)


def retire(key: Key) -> None:
    """A stream object is gone; its work goes on, and the device and (if blocking) the default stream still wait for it."""
    timeline = _timelines.pop(key)
    _retired[key[0]].update(timeline.snapshot())
    if timeline.blocking:
        _timelines[key[0], 0].learn(timeline.snapshot())


def finish(snapshot: dict[Key, int]) -> None:
    """The host has waited for all of ``snapshot``."""
    for key, n in snapshot.items():
        if _finished.get(key, 0) < n:
            _finished[key] = n


class Event:
    """cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.ptr = next(_pointers)
        self._device, self._timing = current(), not disable_timing
        self._snapshot: dict[Key, int] = {}
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        timeline = timeline_of(stream or get_current_stream())
        if timeline.key[0] != self._device:
            raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event is recorded on a stream of its own device")
        catch_up(timeline)
        self._snapshot, self._time = timeline.snapshot(), time.perf_counter()

    @property
    def done(self) -> bool:
        return True

    def synchronize(self) -> None:
        finish(self._snapshot)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    if not (start_event._timing and end_event._timing) or start_event._time is None or end_event._time is None:
        raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: both events must be recorded, with timing")
    return (end_event._time - start_event._time) * 1e3


class Stream:
    """cupy.cuda.Stream."""

    null: Stream
    ptds: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None) -> None:
        self.device_id, self.ptr = (-1, 0) if null else (-1, 2) if ptds else (current(), next(_pointers))
        if self.ptr > 2:
            key = (self.device_id, self.ptr)
            _timelines[key] = Timeline(key, not non_blocking)
            weakref.finalize(self, retire, key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<Stream {self.ptr} (device {self.device_id})>"

    def _check_device(self) -> None:
        if self.device_id not in (-1, current()):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device ({current()})"
            )

    def __enter__(self) -> Stream:
        self._check_device()
        thread.stream_stack.append((current(), thread.streams.get(current())))
        thread.streams[current()] = self
        return self

    def __exit__(self, *exc: object) -> None:
        device, before = thread.stream_stack.pop()
        thread.streams[device] = Stream.null if before is None else before

    def use(self) -> Stream:
        self._check_device()
        thread.streams[current()] = self
        return self

    @property
    def done(self) -> bool:
        return True

    @property
    def is_non_blocking(self) -> bool:
        return not timeline_of(self).blocking

    def synchronize(self) -> None:
        finish(timeline_of(self).snapshot())

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        timeline_of(self).learn(event._snapshot)

    def launch_host_func(self, callback: Any, arg: Any) -> None:
        callback(arg)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


def get_current_stream(device_id: int = -1) -> Stream:
    return thread.streams.get(current() if device_id == -1 else device_id, Stream.null)


def timeline_of(stream: Stream) -> Timeline:
    return _timelines[(current() if stream.device_id == -1 else stream.device_id, stream.ptr)]


def catch_up(timeline: Timeline) -> None:
    """The default stream's implicit order: it waits for all blocking streams of its device, and they for it."""
    device, pointer = timeline.key
    if pointer == 0:
        for other in list(_timelines.values()):
            if other.blocking and other.key[0] == device and other is not timeline:
                timeline.learn(other.snapshot())
    elif timeline.blocking:
        timeline.learn(_timelines[device, 0].snapshot())


def launch(reads: Iterable[Any], writes: Iterable[Any], stream: Stream | None = None, copies: bool = False) -> None:
    """One piece of work on the current stream that reads and writes arrays.

    Raises ValueError for an array of another device (``copies`` may reach one), OrderError for an unordered access.
    """
    with _lock:
        timeline = timeline_of(stream or get_current_stream())
        catch_up(timeline)
        timeline.n += 1
        here = timeline.key[0]
        for array in reads:
            memory = array._mem
            if memory.device_id != here and not copies:
                raise wrong_device(memory.device_id, here)
            _check(timeline, memory.writer, memory, "reads what was written")
            memory.readers[timeline.key] = timeline.n
        for array in writes:
            memory = array._mem
            if memory.device_id != here:
                raise wrong_device(memory.device_id, here)
            _check(timeline, memory.writer, memory, "writes over what was written")
            for reader in memory.readers.items():
                _check(timeline, reader, memory, "writes over what is being read")
            memory.readers = {}
            memory.writer = (timeline.key, timeline.n)


def _check(timeline: Timeline, access: tuple[Key, int] | None, memory: Any, what: str) -> None:
    if access is not None and not timeline.knows(*access):
        raise OrderError(
            f"stream {timeline.key[1]:#x} of device {timeline.key[0]} {what} on stream {access[0][1]:#x} of device {access[0][0]}, "
            f"with no event between them ({memory.size} bytes at {memory.ptr:#x})"
        )


def wrong_device(there: int, here: int) -> ValueError:
    return ValueError(
        f"The device where the array resides ({there}) is different from the current device ({here}). "
        "Peer access is unavailable between these devices."
    )
