"""MPI calls that never block for ever: every wait polls, moves pending messages, and looks at aborts and deadlines."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dtrain.errors import CollectiveTimeout, DistributedError, PeerLost

TAG, ABORT_TAG = 1, 2
LIMIT = 2**30                           # bytes of one MPI message; counts are 32-bit in many libraries
_LOOK = 0.02
_one_at_a_time = threading.Lock()       # where MPI does not let several threads in
movers: list[Callable[[], bool]] = []   # of all groups: a rank that waits here still moves its messages there

Request = tuple[int | None, Any]        # the rank it waits for, the MPI request


class Link:
    """One rank's way to the others of a communicator, with deadlines and aborts."""

    def __init__(self, MPI: Any, comm: Any, ranks: tuple[int, ...], timeout: float, limit: int | None) -> None:
        self.MPI, self.comm, self.ranks, self.timeout = MPI, comm, ranks, timeout
        self.limit = limit or LIMIT
        self.deadline = 0.0
        self._error: DistributedError | None = None
        self._threads = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
        self._farewells: list[Any] = []
        self._closed = False

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Around MPI calls: one thread at a time if need be, and MPI's errors in our words."""
        with contextlib.nullcontext() if self._threads else _one_at_a_time:
            try:
                yield
            except self.MPI.Exception as error:
                raise PeerLost(f"MPI reports: {error}") from None

    def exchange(self, pushes: Sequence[tuple[int, np.ndarray]], takes: Sequence[tuple[int, np.ndarray]]) -> None:
        """Send and receive these bytes (uint8), in pieces of at most ``limit``."""
        with self.calling():
            requests: list[Request] = [
                (peer, self.comm.Irecv(piece, peer, TAG)) for peer, data in takes for piece in self.pieces(data)]
            requests += [(peer, self.comm.Isend(piece, peer, TAG)) for peer, data in pushes for piece in self.pieces(data)]
        self.wait(requests, self.deadline)

    def pieces(self, data: np.ndarray) -> list[np.ndarray]:
        """``data`` cut to the size of an MPI message; nothing for nothing."""
        return [data[low:low + self.limit] for low in range(0, data.size, self.limit)]

    def wait(self, requests: Sequence[Request], deadline: float) -> None:
        """Return when all ``requests`` are done."""
        left, began = list(requests), time.monotonic()
        looked = began
        while left := self.still_open(left):
            moved = any([move() for move in list(movers)])
            now = time.monotonic()
            if now - looked > _LOOK:
                looked = now
                self.check()
                if now > deadline:
                    self.give_up(now - began, [peer for peer, _ in left])
            if not moved:
                self.pause(now - began)

    def still_open(self, requests: list[Request]) -> list[Request]:
        """Those of ``requests`` that are not done."""
        with self.calling():
            return [(peer, request) for peer, request in requests if not request.Test()]

    @staticmethod
    def pause(waited: float) -> None:
        """MPI moves data only while it is asked: yield for long, then sleep."""
        os.sched_yield() if waited < 0.2 else time.sleep(min(0.001, waited / 1000))

    def give_up(self, waited: float, peers: Sequence[int | None]) -> None:
        """Abort because the deadline has passed."""
        names = sorted({f"rank {self.ranks[p]}" for p in peers if p is not None})
        self.abort(f"rank {self.ranks[self.comm.rank]} waited {waited:.3g} s for {', '.join(names) or 'a message'}", True)
        self.check()

    def check(self) -> None:
        """Raise if this rank or another has aborted or this one closed."""
        if self._closed:
            raise DistributedError("this rank has closed the group")
        if self._error is None:
            self._hear()
        if self._error is not None:
            raise type(self._error)(str(self._error))

    def _hear(self) -> None:
        status = self.MPI.Status()
        with self.calling():
            if not self.comm.Iprobe(self.MPI.ANY_SOURCE, ABORT_TAG, status):
                return
            text = bytearray(status.Get_count(self.MPI.BYTE))
            self.comm.Recv([text, self.MPI.BYTE], status.Get_source(), ABORT_TAG)
        kind = CollectiveTimeout if text[:1] == b"T" else PeerLost
        self._error = kind(text[1:].decode(errors="replace"))

    def abort(self, reason: str, timed_out: bool = False) -> None:
        """Tell all ranks; those who wait, or call later, raise ``reason``."""
        if self._error is not None or self._closed:
            return
        self._error = (CollectiveTimeout if timed_out else PeerLost)(reason)
        text = (b"T" if timed_out else b"L") + reason.encode()[:1000]
        with contextlib.suppress(PeerLost), self.calling():
            if not self.MPI.Is_finalized():
                self._farewells = [self.comm.Isend([text, self.MPI.BYTE], peer, ABORT_TAG)
                                   for peer in range(self.comm.size) if peer != self.comm.rank]

    def close(self) -> None:
        """No more calls."""
        self._closed = True
