"""CUDA streams and events with PyTorch's interface over CuPy's.

Work on one stream runs in order; between streams nothing is ordered but by events. CuPy keeps one current stream per
thread and device, and its pool hands memory freed on a stream only to later work of that same stream.
"""

from __future__ import annotations

from typing import Any

from dtrain.backend import cuda, state
from dtrain.backend.device import device


class Event:
    """A mark in a stream's work. ``enable_timing`` lets ``elapsed_time`` measure between two of them."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._options = {"block": blocking, "disable_timing": not enable_timing, "interprocess": interprocess}
        self._raw: Any = None  # made when recorded: an event belongs to the device it is made on

    def record(self, stream: Stream | None = None) -> None:
        """Mark the point that ``stream``, by default the current one, has been given work up to."""
        stream = stream or current_stream()
        with cuda.on(stream.device_index):
            if self._raw is None:
                self._raw = cuda.cupy().cuda.Event(**self._options)
            self._raw.record(stream.raw)

    def wait(self, stream: Stream | None = None) -> None:
        """Let later work of ``stream``, by default the current one, begin only after this event."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Is the marked work done? True for an event that was never recorded."""
        return self._raw is None or bool(self._raw.done)

    def synchronize(self) -> None:
        """Wait on the CPU until the marked work is done."""
        if self._raw is not None:
            self._raw.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds between this event and ``end_event``; both made with ``enable_timing`` and done."""
        return float(cuda.cupy().cuda.get_elapsed_time(self._raw, end_event._raw))

    def __repr__(self) -> str:
        return f"<dtrain.cuda.Event {'unrecorded' if self._raw is None else hex(self._raw.ptr)}>"


class Stream:
    """A queue of work on one device; it runs beside the default stream. A lower ``priority`` goes first."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device_index = cuda.index_of(device)
        with cuda.on(self.device_index):
            self.raw: Any = cuda.cupy().cuda.Stream(non_blocking=True, priority=priority)

    @classmethod
    def wrap(cls, raw: Any, index: int) -> Stream:
        """The CuPy stream ``raw`` of device ``index``."""
        made = cls.__new__(cls)
        made.device_index, made.raw = index, raw
        return made

    @property
    def device(self) -> device:
        return device("cuda", self.device_index)

    @property
    def cuda_stream(self) -> int:
        """The ``cudaStream_t`` as a number."""
        return int(self.raw.ptr)

    def synchronize(self) -> None:
        """Wait on the CPU until all work given to the stream is done."""
        self.raw.synchronize()

    def query(self) -> bool:
        """Is all work given to the stream done?"""
        return bool(self.raw.done)

    def record_event(self, event: Event | None = None) -> Event:
        """Record ``event``, by default a new one, on this stream."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work of this stream begin only after ``event``."""
        if event._raw is not None:
            self.raw.wait_event(event._raw)

    def wait_stream(self, stream: Stream) -> None:
        """Let later work of this stream begin only after all that ``stream`` has been given so far."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device_index, self.raw.ptr) == (other.device_index, other.raw.ptr)

    def __hash__(self) -> int:
        return hash((self.device_index, self.raw.ptr))

    def __repr__(self) -> str:
        return f"<dtrain.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.raw.ptr:#x}>"


class use_stream:
    """Context in which this thread's work on the stream's device goes to ``stream``; None changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> Stream | None:
        if self.stream is not None:
            rank = state.local.rank
            self._before = rank, rank.cuda_device
            self._device = cuda.on(self.stream.device_index)
            self._device.__enter__()
            self.stream.raw.__enter__()
            rank.cuda_device = self.stream.device_index
        return self.stream

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            rank, rank.cuda_device = self._before  # type: ignore[misc]
            self.stream.raw.__exit__(*exc)
            self._device.__exit__(*exc)


def current_stream(where: Any = None) -> Stream:
    """The stream this thread's work on the device goes to; by default of the current device."""
    index = cuda.index_of(where)
    return Stream.wrap(cuda.cupy().cuda.get_current_stream(index), index)


def default_stream(where: Any = None) -> Stream:
    """The device's default stream."""
    index = cuda.index_of(where)
    return Stream.wrap(cuda.cupy().cuda.Stream.null, index)


def set_stream(stream: Stream | None) -> None:
    """Send this thread's work on the stream's device to ``stream`` from now on; None changes nothing."""
    if stream is not None:
        with cuda.on(stream.device_index):
            stream.raw.use()
