"""Handles of operations under way, and the queue that runs a group's asynchronous collectives in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from dtrain.errors import CollectiveTimeout, DistributedError
from dtrain.logs import logger


def seconds(timeout: float | timedelta | None) -> float | None:
    """A timeout as seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


class Work:
    """An operation that is done: what synchronous calls return, and the base of the others."""

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Block until the operation is done, at most ``timeout`` seconds; raise what it raised."""
        return True

    def is_completed(self) -> bool:
        """Whether ``wait`` would return at once."""
        return True

    def is_success(self) -> bool:
        """Whether it is done and raised nothing."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> BaseException | None:
        """What the operation raised, if it is done and raised."""
        return None


DONE = Work()


class FinishedBy(Work):
    """``work``, and after it ``finish`` (once), such as copying what came into the caller's arrays."""

    def __init__(self, work: Work, finish: Callable[[], Any]) -> None:
        self._work = work
        self._finish: Callable[[], Any] | None = finish
        self._lock = threading.Lock()

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        self._work.wait(timeout)
        with self._lock:
            if self._finish is not None:
                self._finish()
                self._finish = None
        return True

    def is_completed(self) -> bool:
        return self._work.is_completed() and (self._work.exception() is not None or self.wait())

    def exception(self) -> BaseException | None:
        return self._work.exception()


class QueuedWork(Work):
    """An operation waiting for, or running on, its group's communication thread."""

    __slots__ = ("_run", "_name", "_finished", "_error", "_seen")

    def __init__(self, run: Callable[[], Any], name: object) -> None:
        self._run: Callable[[], Any] | None = run
        self._name = name
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self._seen = False

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        if not self._finished.wait(seconds(timeout)):
            raise CollectiveTimeout(f"{self._name} was not done after {timeout} s; it is still under way")
        self._seen = True
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        return self._finished.is_set()

    def exception(self) -> BaseException | None:
        self._seen = True
        return self._error

    def execute(self) -> None:
        """Run it; called once, by the communication thread."""
        assert self._run is not None
        try:
            self._run()
        except BaseException as error:      # kept for wait(): this thread has no caller to tell
            self._error = error
        finally:
            self._run = None                # drop the arrays
            self._finished.set()

    def report_unseen(self) -> None:
        """Log a failure that nobody waited for."""
        if self._error is not None and not self._seen:
            logger.error("%s failed, and nobody waited for it: %s", self._name, self._error)


class Turns:
    """First in, first out: asynchronous operations on one thread, synchronous ones inline when nothing is queued."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._queue: deque[QueuedWork] = deque()
        self._busy = False                  # somebody executes: a caller inline, or the thread
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, fn: Callable[[], Any], name: object) -> Work:
        """Execute ``fn`` after everything submitted before it; inline if that is nothing."""
        with self._changed:
            inline = not self._busy and not self._queue and not self._closed
            if inline:
                self._busy = True
        if not inline:
            work = self.submit(fn, name)
            work.wait()
            return work
        try:
            fn()
        finally:
            with self._changed:
                self._busy = False
                if self._queue:
                    self._changed.notify()
        return DONE

    def submit(self, fn: Callable[[], Any], name: object) -> QueuedWork:
        """Queue ``fn`` for the communication thread, which starts with the first one."""
        work = QueuedWork(fn, name)
        with self._changed:
            if self._closed:
                raise DistributedError(f"group {self._name!r} is closed")
            self._queue.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=f"dtrain-comm-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify()
        return work

    def _loop(self) -> None:
        done: list[QueuedWork] = []
        while True:
            with self._changed:
                while self._busy or not self._queue:
                    if self._closed and not self._queue and not self._busy:
                        break
                    self._changed.wait()
                if not self._queue:
                    break
                work = self._queue.popleft()
                self._busy = True
            work.execute()
            done = [w for w in done if w._error is not None and not w._seen] + [work]
            with self._changed:
                self._busy = False
        for work in done:
            work.report_unseen()

    def close(self, timeout: float | None = None) -> bool:
        """Let what is queued finish and join the thread; nothing can be submitted afterwards. False if time ran out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True
