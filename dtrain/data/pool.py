"""The worker processes of one loader iterator, seen from the loader: start, talk, notice deaths, end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from dtrain.data import worker
from dtrain.data.channel import Closed, LoaderEnd
from dtrain.data.collate import load_tensors
from dtrain.data.worker import Result, Task
from dtrain.errors import DataError

GRACE = 5.0                          # seconds a worker has to finish its sample when told to end
_HINTS = {signal.SIGKILL: "; the system kills processes like this when memory runs out: try fewer workers or smaller batches",
          signal.SIGBUS: "; shared memory may have run out", signal.SIGSEGV: "; native code in the dataset crashed"}


class _Member:
    """One worker process and the loader's end of the socket to it."""

    def __init__(self, process: Any, sock: socket.socket) -> None:
        self.process, self.link = process, LoaderEnd(sock)


class Pool:
    """``count`` workers started by ``job(id)``; ends them when closed, collected or at exit of the interpreter."""

    def __init__(self, count: int, job: Callable[[int], worker.Job], context: Any) -> None:
        self._members: list[_Member] = []
        self._end = weakref.finalize(self, _end_all, self._members, os.getpid())
        load_tensors()
        try:
            for number in range(count):
                self._start(job(number), context)
        except BaseException:
            self.close()
            raise

    def _start(self, job: worker.Job, context: Any) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        inherited = [m.link.sock for m in self._members] + [ours] if context.get_start_method() == "fork" else []
        try:
            process = context.Process(target=worker.main, args=(job, theirs, inherited), daemon=True, name=f"dtrain-loader-{job.id}")
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._members.append(_Member(process, ours))

    def send(self, number: int, task: Task) -> None:
        """Give worker ``number`` a task; DataError if it has died."""
        try:
            self._members[number].link.send(task)
        except Closed:
            self._fail(self._members[number])

    def receive(self, timeout: float | None) -> list[Result]:
        """What has arrived, waiting for something; DataError if a worker died, or nothing came for ``timeout`` seconds."""
        members = {m.link.sock: m for m in self._members}
        sentinels = {m.process.sentinel: m for m in self._members}
        ready = wait([*members, *sentinels], timeout)
        if not ready:
            self._time_out(timeout)
        results: list[Result] = []
        try:
            for member in (members[r] for r in ready if r in members):
                results += member.link.receive()
        except Closed:
            self._fail(member)
        for dead in (sentinels[r] for r in ready if r in sentinels):
            self._fail(dead)
        return results

    def close(self, grace: float | None = None) -> None:
        """End all workers, in ``grace`` seconds (default: GRACE) or by force."""
        if self._end.detach():
            _end_all(self._members, os.getpid(), grace)

    @property
    def closed(self) -> bool:
        """Whether the workers have been ended."""
        return not self._end.alive

    def _time_out(self, timeout: float | None) -> None:
        pids = ", ".join(str(m.process.pid) for m in self._members)
        self.close(grace=0.0)
        raise DataError(f"DataLoader timed out: no batch came within {timeout} seconds (worker pids {pids}); "
                        "raise timeout, or see what the dataset waits for")

    def _fail(self, member: _Member) -> None:
        """Raise DataError about a worker that has ended, and end the others."""
        member.process.join(GRACE)
        process, number = member.process, self._members.index(member)
        code = process.exitcode
        if code is None:
            how = "stopped answering"
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was killed by {name}" + _HINTS.get(-code, "")
        else:
            how = f"ended with exit code {code} before its work was done; did the dataset call exit?"
        message = f"DataLoader worker {number} (pid {process.pid}) {how}"
        self.close(grace=0.0)
        raise DataError(message)


def _end_all(members: list[_Member], owner: int, grace: float | None = None) -> None:
    """Close the sockets, which tells the workers to end; those that do not in time are terminated, then killed."""
    if os.getpid() != owner:                      # a forked copy of the loader's process: the workers are not its own
        return
    for m in members:
        m.link.sock.close()
    deadline = time.monotonic() + (GRACE if grace is None else grace)
    for stop in (None, "terminate", "kill"):
        for m in members:
            if stop and m.process.is_alive():
                getattr(m.process, stop)()
        for m in members:
            m.process.join(max(0.0, deadline - time.monotonic()))
        deadline = time.monotonic() + 1.0
    for m in members:
        if not m.process.is_alive():
            m.process.close()
    members.clear()


def choose_context(asked: Any) -> Any:
    """The multiprocessing context: as asked, else fork on Linux unless CUDA or InfiniBand make a fork unsafe."""
    if isinstance(asked, multiprocessing.context.BaseContext):
        return asked
    if asked is None and sys.platform == "linux":
        asked = "forkserver" if _fork_is_unsafe() else "fork"
    return multiprocessing.get_context(asked)


def _fork_is_unsafe() -> bool:
    cuda = sys.modules.get("dtrain.backend.cuda")
    if cuda is not None and cuda.is_initialized():
        return True
    return "mpi4py.MPI" in sys.modules and os.path.isdir("/sys/class/infiniband")
