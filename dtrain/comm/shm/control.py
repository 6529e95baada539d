"""Who has come how far, who is still alive, and how to wait for them without hanging for ever."""

from __future__ import annotations

import os
import platform
import select
import threading
import time
from collections.abc import Callable

from dtrain.comm.shm.futex import Futex
from dtrain.comm.shm.segment import LINE, TEXT, Layout, Segment
from dtrain.errors import CollectiveTimeout, DistributedError, PeerLost

# words of the group's line; the first two hold the token
ABORT = 4
# words of a rank's line
POSTED, PID, STATE, WHEN, PIDNS, SLEEPERS = range(6)
RUNNING, CLOSED, LOST, TIMED_OUT = range(4)
_LOOK = 0.02                    # seconds between looks at deadlines and at dead processes
_SPINS = 250                    # about 30 us
_X86 = platform.machine() in ("x86_64", "AMD64", "i686")


class Signal:
    """Wakes waiting threads of this process; ``version`` tells whether anything happened since one looked."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 0

    def notify(self) -> None:
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def wait_since(self, version: int, timeout: float) -> None:
        with self.changed:
            if self.version == version:
                self.changed.wait(timeout)


class Control:
    """The control words of one rank in a segment; ``signal`` is shared by ranks that are threads of one process.

    ``timeout`` is the seconds a wait may take, ``deadline`` the end of the present collective.
    """

    def __init__(self, segment: Segment, layout: Layout, rank: int, ranks: tuple[int, ...], timeout: float,
                 signal: Signal | None) -> None:
        self.words, self.raw, self.layout = segment.words, segment.raw, layout
        self.rank, self.ranks, self.size = rank, ranks, layout.size
        self.lines = [LINE * (1 + r) for r in range(layout.size)]
        self.mine = self.lines[rank]
        self.others = [self.lines[r] for r in range(layout.size) if r != rank]
        self.deadline = 0.0
        self.timeout = timeout
        self.last_call: Callable[[int], str] = lambda r: ""
        self._signal = signal
        self._spins = _SPINS if signal is None and (os.cpu_count() or 1) >= layout.size else 0
        self._futex = Futex(segment.array.ctypes.data) if signal is None else None
        self._fences = (threading.Lock(), threading.Lock())
        self._poll = select.poll()
        self._pidfds: dict[int, int] = {}
        self._gone: list[int] = []

    # -- progress ------------------------------------------------------------------------------------

    def fence(self) -> None:
        """Order this thread's stores before its next ones; x86 does so by itself, elsewhere two locks do it."""
        if not _X86:
            for lock in self._fences:
                lock.acquire()
                lock.release()

    def post(self, value: int) -> None:
        """Publish that this rank has reached round ``value``; what it wrote before is visible first."""
        self.fence()
        self.words[self.mine] = value
        if self.words[self.mine + SLEEPERS]:
            self.words[self.mine + SLEEPERS] = 0
            self._futex.wake(self.mine)
        self.notify()

    def notify(self) -> None:
        """Wake the threads that wait; processes look by themselves."""
        if self._signal is not None:
            self._signal.notify()

    def wait_all(self, value: int) -> None:
        """Return when all ranks have posted ``value`` or more."""
        words = self.words
        for index in self.others:
            if words[index] < value:
                self._wait(index, value)
        self.fence()

    def _wait(self, index: int, value: int) -> None:
        words = self.words
        for _ in range(self._spins):
            if words[index] >= value:
                return
        self.until(lambda: words[index] >= value, self.deadline,
                   lambda: [r for r in range(self.size) if words[self.lines[r]] < value], index)

    def _doze(self, index: int, ready: Callable[[], bool]) -> None:
        """Sleep until the rank whose line is at ``index`` posts again. It may miss our flag, so never for long."""
        self.words[index + SLEEPERS] = 1
        seen = self.words[index]            # before the last look, so that a post after it is noticed
        if not ready():
            self._futex.wait(index, seen, 0.002)

    def until(self, ready: Callable[[], bool], deadline: float, missing: Callable[[], list[int]], index: int = -1) -> None:
        """Wait for ``ready``, which needs the next post of the line at ``index`` if that is given.

        Otherwise yield at first, then sleep, an eighth of the time waited so far and at most 1 ms.
        """
        began = looked = time.monotonic()
        version = self._signal.version if self._signal else 0
        while not ready():
            if self.words[ABORT]:
                self.raise_abort()
            now = time.monotonic()
            if now - looked > _LOOK:
                looked = now
                self._look(now - began, now > deadline, ready, missing)
            if self._signal is not None:
                self._signal.wait_since(version, _LOOK)
                version = self._signal.version
            elif index >= 0 and self._futex.works:
                self._doze(index, ready)
            elif now - began < 0.0003:
                os.sched_yield()
            else:
                time.sleep(min(0.001, (now - began) / 8))

    def _look(self, waited: float, late: bool, ready: Callable[[], bool], missing: Callable[[], list[int]]) -> None:
        """Fail if somebody we wait for is gone, or the deadline is."""
        gone = self.dead()
        gone += [r for r in missing() if self.words[self.lines[r] + STATE] == CLOSED and r not in gone]
        if ready():                 # it may have posted, and only then left
            return
        awaited = set(missing())
        for r in gone:
            if r in awaited:
                closed = self.words[self.lines[r] + STATE] == CLOSED
                self.fail(LOST, f"rank {self.ranks[r]} {'has left the group' if closed else self._obituary(r)}")
        if late:
            names = ", ".join(f"rank {self.ranks[r]}{self.last_call(r)}" for r in sorted(awaited)) or "a message"
            self.fail(TIMED_OUT, f"rank {self.ranks[self.rank]} waited {waited:.3g} s for {names}")

    # -- the living and the dead ---------------------------------------------------------------------

    def meet(self) -> None:
        """Announce this process and wait for all the others; afterwards deaths are noticed."""
        self.deadline = time.monotonic() + self.timeout
        self.words[self.mine + PIDNS] = os.stat("/proc/self/ns/pid").st_ino
        self.fence()
        self.words[self.mine + PID] = os.getpid()
        self.notify()
        pids = [line + PID for line in self.lines]
        self.until(lambda: all(self.words[i] for i in pids), self.deadline,
                   lambda: [r for r in range(self.size) if not self.words[pids[r]]])
        if self._signal is None:
            self._watch()

    def _watch(self) -> None:
        for r, line in enumerate(self.lines):
            if r == self.rank or self.words[line + PIDNS] != self.words[self.mine + PIDNS]:
                continue
            try:
                fd = os.pidfd_open(self.words[line + PID])
            except ProcessLookupError:
                self._gone.append(r)    # already; whoever waits for it will hear
                continue
            except OSError:         # a kernel without pidfd: deaths show as a passed deadline only
                continue
            self._pidfds[fd] = r
            self._poll.register(fd, select.POLLIN)

    def dead(self) -> list[int]:
        """Ranks of this group whose processes have ended."""
        return self._gone + [self._pidfds[fd] for fd, _ in self._poll.poll(0)]

    def _obituary(self, r: int) -> str:
        return f"died (process {self.words[self.lines[r] + PID]} on this node ended without leaving the group)"

    # -- the end -------------------------------------------------------------------------------------

    def fail(self, state: int, reason: str) -> None:
        """Abort with ``reason`` and raise it here too."""
        self.abort(reason, state)
        self.raise_abort()

    def abort(self, reason: str, state: int = LOST) -> None:
        """Publish ``reason`` to all ranks, once."""
        if self.words[self.mine + STATE] != RUNNING:
            return
        text = reason.encode()[:TEXT - 1]
        at = self.layout.text(self.rank)
        self.raw[at:at + len(text)] = text
        self.words[self.mine + WHEN] = time.monotonic_ns()
        self.fence()
        self.words[self.mine + STATE] = state
        self.words[ABORT] = 1
        self.notify()

    def raise_abort(self) -> None:
        """Raise the earliest published reason."""
        failed = [r for r, line in enumerate(self.lines) if self.words[line + STATE] in (LOST, TIMED_OUT)]
        first = min(failed, key=lambda r: self.words[self.lines[r] + WHEN])
        at = self.layout.text(first)
        text = bytes(self.raw[at:at + TEXT]).split(b"\0", 1)[0].decode(errors="replace")
        timed_out = self.words[self.lines[first] + STATE] == TIMED_OUT
        raise (CollectiveTimeout if timed_out else PeerLost)(text)

    def check(self) -> None:
        """Raise if the group was aborted or closed."""
        if self.words[ABORT]:
            self.raise_abort()
        if self.words[self.mine + STATE] == CLOSED:
            raise DistributedError("this rank has closed the group")

    def abort_error(self) -> DistributedError:
        """The published reason as an error."""
        try:
            self.raise_abort()
        except DistributedError as error:
            return error
        raise AssertionError("nobody aborted")

    def close(self) -> None:
        """Mark this rank as gone, and forget the others."""
        if self.words[self.mine + STATE] == RUNNING:
            self.words[self.mine + STATE] = CLOSED
            self.notify()
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds = {}
        self._poll = select.poll()
