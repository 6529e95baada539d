"""Point to point through MPI: a header on one communicator, the bytes on another.

A receiver learns of dtype and count before it takes the bytes, and asks for bytes in the order of the headers, so that
those of two messages cannot be mixed up. MPI moves bytes while ranks are in calls: a send may be done only when its
receiver next calls anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.comm.mpi.link import Link, movers
from dtrain.comm.work import Work, seconds
from dtrain.errors import ArgumentError, CollectiveMismatch, CollectiveTimeout, DistributedError

if TYPE_CHECKING:
    from dtrain.comm.mpi.link import Request

_HEADER = 256
_TAGS = 32767                   # what every MPI grants


class MessageWork(Work):
    """A send or receive under way; ``source`` is the rank a message came from."""

    def __init__(self, owner: Messages, peer: int | None) -> None:
        self._owner, self.peer = owner, peer
        self.requests: list[Request] = []
        self.done, self.error = False, None
        self.source: int | None = None

    def advance(self) -> bool:
        """Test the requests; True once they are all done. Called with the owner's lock held."""
        if not self.requests:
            return True
        self.requests = self._owner.link.still_open(self.requests)
        return not self.requests

    def complete(self, error: BaseException | None = None) -> None:
        """Mark as done."""
        self.error, self.done = error, True

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        if not self.done:
            self._owner.finish(self, seconds(timeout))
        if self.error is not None:
            raise self.error
        return True

    def is_completed(self) -> bool:
        if not self.done:
            self._owner.progress()
        return self.done

    def exception(self) -> BaseException | None:
        return self.error


class ReceiveWork(MessageWork):
    """First the header, then the bytes."""

    def __init__(self, owner: Messages, data: np.ndarray, what: bytes, peer: int | None, tag: int,
                 on_done: Callable[[], None]) -> None:
        super().__init__(owner, peer)
        self.data, self.what, self.tag, self._on_done = data, what, tag, on_done
        self.header = np.zeros(_HEADER, np.uint8)
        self._wrong: CollectiveMismatch | None = None

    def advance(self) -> bool:
        if not self.has_header() or not super().advance():
            return False
        if self._wrong is None:
            self._on_done()
        self.complete(self._wrong)
        return True

    def has_header(self) -> bool:
        """Whether the header is there; when it comes, ask for the bytes."""
        if self.source is None:
            status = self._owner.link.MPI.Status()
            with self._owner.link.calling():
                if not self.requests[0][1].Test(status):
                    return False
            self.source = status.Get_source()
            self._owner.settle_before(self)
            self.requests = self._owner.take_bytes(self)
        return True

    def destination(self) -> np.ndarray:
        """Where the bytes go: into the array if they fit it, else into scratch, with an error to raise."""
        size = int(self.header[:8].view(np.int64)[0])
        what = self.header[8:].tobytes().rstrip(b"\0")
        if what == self.what:
            return self.data
        owner, source = self._owner, self.source
        me, peer = owner.link.ranks[owner.link.comm.rank], owner.link.ranks[source or 0]
        self._wrong = CollectiveMismatch(
            f"rank {peer} sent {what.decode()} and rank {me} expected {self.what.decode()} "
            f"(tag {self.tag}, group {owner.name!r}); the message was dropped")
        return np.empty(size, np.uint8)


class Messages:
    """All messages of one rank of one group."""

    def __init__(self, link: Link, headers: Any, data: Any, name: str) -> None:
        self.link, self.name = link, name
        self._headers, self._data = headers, data
        self._lock = threading.RLock()
        self._sends: list[MessageWork] = []
        self._receives: list[ReceiveWork] = []
        movers.append(self.progress)

    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> MessageWork:
        """Start sending."""
        self.link.check()
        header = np.zeros(_HEADER, np.uint8)
        header[:8].view(np.int64)[0] = data.size
        header[8:8 + len(what)] = np.frombuffer(what, np.uint8)
        work = MessageWork(self, peer)
        with self._lock, self.link.calling():
            work.requests = [(peer, self._headers.Isend(header, peer, _tag(tag)))]
            work.requests += [(peer, self._data.Isend(piece, peer, _tag(tag))) for piece in self.link.pieces(data)]
            self._sends.append(work)
        self.progress()
        return work

    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int, on_done: Callable[[], None]) -> ReceiveWork:
        """Start receiving."""
        self.link.check()
        work = ReceiveWork(self, data, what, peer, tag, on_done)
        with self._lock, self.link.calling():
            source = self.link.MPI.ANY_SOURCE if peer is None else peer
            work.requests = [(peer, self._headers.Irecv(work.header, source, _tag(tag)))]
            self._receives.append(work)
        self.progress()
        return work

    def take_bytes(self, work: ReceiveWork) -> list[Request]:
        """Ask for the bytes of a message whose header is there."""
        with self.link.calling():
            return [(work.source, self._data.Irecv(piece, work.source, _tag(work.tag)))
                    for piece in self.link.pieces(work.destination())]

    def progress(self) -> bool:
        """Move what can be moved; True if a message was completed."""
        if not self._sends and not self._receives:
            return False
        with self._lock:
            finished = [work for work in self._sends if work.advance()]
            for work in finished:
                work.complete()
                self._sends.remove(work)
            return bool(finished) | self._receive()

    def _receive(self) -> bool:
        done = [work for work in list(self._receives) if work.advance()]
        self._receives = [work for work in self._receives if not work.done]
        return bool(done)

    def settle_before(self, work: ReceiveWork) -> None:
        """Bytes must be asked for in the order in which headers were matched, and an older receive was matched first.

        So if the header of ``work`` is there, that of an older one that fits the same messages is there or about to be.
        """
        for older in self._receives[:self._receives.index(work)]:
            if older.tag == work.tag and older.peer in (None, work.source):
                while not older.has_header():
                    pass

    def finish(self, work: MessageWork, timeout: float | None) -> None:
        """Move messages until ``work`` is done; a passed ``timeout`` leaves it under way, the group's default aborts."""
        began = looked = time.monotonic()
        limit = began + (self.link.timeout if timeout is None else timeout)
        while not work.done:
            for move in list(movers):
                move()
            now = time.monotonic()
            if now - looked > 0.02:
                looked = now
                self.link.check()
                if now > limit and not work.done:
                    if timeout is None:
                        self.link.give_up(now - began, [work.peer])
                    raise CollectiveTimeout(f"the message was not there after {timeout} s; it is still under way")
            Link.pause(now - began)

    def close(self) -> None:
        """Forget this group's messages."""
        if self.progress in movers:
            movers.remove(self.progress)
        with self._lock:
            for work in [*self._sends, *self._receives]:
                work.complete(DistributedError("the group was closed before this message was complete"))
            self._sends, self._receives = [], []


def _tag(tag: int) -> int:
    if not 0 <= tag <= _TAGS:
        raise ArgumentError(f"tag must be between 0 and {_TAGS}, not {tag}")
    return tag
