"""Point to point through shared memory: a ring of bytes for each ordered pair of ranks.

A message is a header (lengths, tag, words on dtype and count) and its bytes. A receiver takes messages out of a ring
only while it wants one from there; those with another tag are put aside. Whoever waits moves everything that
can move; a small thread does so while nobody waits, so that a rank busy elsewhere does not block its peers.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

import numpy as np

from dtrain.comm.shm.control import ABORT, Control
from dtrain.comm.shm.segment import LINE, WORD, Layout, Segment
from dtrain.comm.work import Work, seconds
from dtrain.errors import CollectiveMismatch, CollectiveTimeout, DistributedError

_HEAD = struct.Struct("<qQI4x")          # tag, bytes of data, bytes of words


class _Ring:
    """One direction of one pair: a byte stream with counts of what was written and read."""

    def __init__(self, segment: Segment, layout: Layout, source: int, dest: int) -> None:
        start = layout.channel_data(source, dest)
        self.data = segment.array[start:start + layout.channel]
        self.words = segment.words
        self.written = layout.channel_words(source, dest) // WORD
        self.read = self.written + LINE

    def write(self, piece: np.ndarray) -> int:
        """Copy what fits of ``piece`` in; returns how much that was. The caller fences and calls ``advance``."""
        at, room = self.words[self.written], self.data.size
        count = min(piece.size, room - (at - self.words[self.read]))
        at %= room
        first = min(count, room - at)
        self.data[at:at + first] = piece[:first]
        self.data[:count - first] = piece[first:count]
        return count

    def peek(self, out: np.ndarray) -> int:
        """Copy what is there, at most ``out.size``, without taking it."""
        at, room = self.words[self.read], self.data.size
        count = min(out.size, self.words[self.written] - at)
        at %= room
        first = min(count, room - at)
        out[:first] = self.data[at:at + first]
        out[first:count] = self.data[:count - first]
        return count


class MessageWork(Work):
    """A send or receive. ``source`` is the rank a message came from, once it is there."""

    def __init__(self, owner: Messages, data: np.ndarray, what: bytes, peer: int | None, tag: int,
                 on_done: Callable[[], None] | None = None) -> None:
        self._owner, self.what, self.peer, self.tag = owner, what, peer, tag
        self.pieces = [data]
        self.done = False
        self.error: BaseException | None = None
        self.source: int | None = None
        self.on_done = on_done

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

    def complete(self, error: BaseException | None = None) -> None:
        """Called with the owner's lock held."""
        if error is None and self.on_done is not None:
            self.on_done()
        self.error, self.pieces, self.done = error, [], True


class _Inbox:
    """What one source has sent us: the message being read, and those nobody asked for yet."""

    def __init__(self) -> None:
        self.work: MessageWork | None = None
        self.dest: np.ndarray | None = None         # None between messages
        self.filled = 0
        self.head: tuple[int, bytes] = (0, b"")     # tag, what
        self.aside: list[tuple[int, bytes, np.ndarray]] = []


class Messages:
    """All messages of one rank of one group."""

    def __init__(self, segment: Segment, layout: Layout, control: Control, name: str) -> None:
        self._control, self._name = control, name
        everyone = range(layout.size)
        self._out = [_Ring(segment, layout, control.rank, r) for r in everyone]
        self._in = [_Ring(segment, layout, r, control.rank) for r in everyone]
        self._sending: list[deque[MessageWork]] = [deque() for _ in everyone]
        self._wanted: list[MessageWork] = []
        self._inbox = [_Inbox() for _ in everyone]
        self._lock = threading.RLock()
        self._pending = threading.Condition(self._lock)
        self._pump: threading.Thread | None = None
        self._closed = False

    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> MessageWork:
        """Queue a message to ``peer``."""
        self._control.check()
        work = MessageWork(self, data, what, peer, tag)
        head = np.frombuffer(_HEAD.pack(tag, data.size, len(what)) + what, np.uint8)
        work.pieces = [head, data] if data.size else [head]
        with self._lock:
            self._sending[peer].append(work)
            self.progress()
            self._need_pump(work)
        return work

    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int,
              on_done: Callable[[], None] | None = None) -> MessageWork:
        """Ask for the next message with ``tag`` from ``peer`` (None: from anybody)."""
        self._control.check()
        work = MessageWork(self, data, what, peer, tag, on_done)
        with self._lock:
            if not self._take_aside(work):
                self._wanted.append(work)
                self.progress()
                self._need_pump(work)
        return work

    def finish(self, work: MessageWork, timeout: float | None) -> None:
        """Move messages until ``work`` is done. A passed ``timeout`` leaves it under way; the group's default aborts."""
        now = time.monotonic()
        limit = now + timeout if timeout is not None else float("inf")

        def ready() -> bool:
            return work.done or (self.progress() and work.done) or time.monotonic() > limit

        def missing() -> list[int]:
            return [] if work.done or work.peer is None else [work.peer]

        self._control.until(ready, now + self._control.timeout, missing)
        if not work.done:
            raise CollectiveTimeout(f"the message ({work.what.decode()}) was not there after {timeout} s; it is still under way")

    def progress(self) -> bool:
        """Move whatever can be moved now; True if something did."""
        with self._lock:
            moved = any([self._push(r) for r, queue in enumerate(self._sending) if queue])
            moved |= any([self._pull(r) for r in self._sources()])
        if moved:
            self._control.notify()
        return moved

    def _sources(self) -> list[int]:
        """Ranks whose rings we read: a message is half here, or somebody wants one."""
        anybody = any(w.peer is None for w in self._wanted)
        wanted = {w.peer for w in self._wanted}
        return [r for r, box in enumerate(self._inbox) if anybody or r in wanted or box.dest is not None]

    def _push(self, r: int) -> bool:
        ring, queue, moved = self._out[r], self._sending[r], False
        while queue:
            work = queue[0]
            count = ring.write(work.pieces[0])
            if not count:
                break
            moved = True
            self._control.fence()
            ring.words[ring.written] += count
            work.pieces[0] = work.pieces[0][count:]
            if not work.pieces[0].size:
                del work.pieces[0]
            if not work.pieces:
                queue.popleft().complete()
        return moved

    def _pull(self, r: int) -> bool:
        ring, box, moved = self._in[r], self._inbox[r], False
        while r in self._sources():
            if box.dest is None and not self._open(ring, box, r):
                break
            assert box.dest is not None
            count = ring.peek(box.dest[box.filled:])
            self._advance(ring, count)
            box.filled += count
            moved |= count > 0
            if box.filled < box.dest.size:
                break
            self._deliver(box)
            moved = True
        return moved

    def _advance(self, ring: _Ring, count: int) -> None:
        self._control.fence()
        ring.words[ring.read] += count

    def _open(self, ring: _Ring, box: _Inbox, r: int) -> bool:
        """Read the next header, if it is all there, and decide where its bytes go."""
        head = np.empty(_HEAD.size, np.uint8)
        if ring.peek(head) < head.size:
            return False
        tag, size, words = _HEAD.unpack(head.tobytes())
        whole = np.empty(_HEAD.size + words, np.uint8)
        if ring.peek(whole) < whole.size:
            return False
        self._advance(ring, whole.size)
        what = whole[_HEAD.size:].tobytes()
        box.head, box.filled = (tag, what), 0
        box.work = next((w for w in self._wanted if w.tag == tag and w.peer in (r, None)), None)
        if box.work is not None:
            self._wanted.remove(box.work)
            box.work.source = r
        fits = box.work is not None and box.work.what == what
        box.dest = box.work.pieces[0] if fits and box.work is not None else np.empty(size, np.uint8)
        return True

    def _deliver(self, box: _Inbox) -> None:
        work, (tag, what), dest = box.work, box.head, box.dest
        box.work = box.dest = None
        assert dest is not None
        if work is None:
            box.aside.append((tag, what, dest))
        else:
            work.complete(self._disagreement(work, what))

    def _take_aside(self, work: MessageWork) -> bool:
        for r in range(len(self._inbox)) if work.peer is None else [work.peer]:
            for i, (tag, what, data) in enumerate(self._inbox[r].aside):
                if tag == work.tag:
                    del self._inbox[r].aside[i]
                    work.source = r
                    error = self._disagreement(work, what)
                    if error is None:
                        work.pieces[0][...] = data
                    work.complete(error)
                    return True
        return False

    def _disagreement(self, work: MessageWork, what: bytes) -> CollectiveMismatch | None:
        if work.what == what:
            return None
        me, peer = self._control.ranks[self._control.rank], self._control.ranks[work.source or 0]
        return CollectiveMismatch(
            f"rank {peer} sent {what.decode()} and rank {me} expected {work.what.decode()} "
            f"(tag {work.tag}, group {self._name!r}); the message was dropped"
        )

    # -- the thread that moves messages while nobody waits -------------------------------------------

    def _need_pump(self, work: MessageWork) -> None:
        if work.done:
            return
        if self._pump is None:
            self._pump = threading.Thread(target=self._run, name=f"dtrain-messages-{self._name}", daemon=True)
            self._pump.start()
        self._pending.notify()

    def _run(self) -> None:
        pause = 0.0002
        while True:
            with self._lock:
                while not self._closed and not self._wanted and not any(self._sending):
                    self._pending.wait()
                if self._closed or self._control.words[ABORT]:
                    self._drop()
                    return
            pause = 0.0002 if self.progress() else min(pause * 1.5, 0.005)
            time.sleep(pause)

    def _drop(self) -> None:
        """Fail what can no longer happen."""
        aborted = self._control.words[ABORT]
        error = self._control.abort_error() if aborted else DistributedError("the group was closed before this message was complete")
        for work in [*self._wanted, *(w for queue in self._sending for w in queue)]:
            work.complete(error)
        self._wanted = []
        for queue in self._sending:
            queue.clear()

    def close(self) -> None:
        """Stop; messages already in the rings can still be read by their receivers."""
        with self._lock:
            self._closed = True
            self._pending.notify_all()
        if self._pump is not None and self._pump is not threading.current_thread():
            self._pump.join(1.0)
