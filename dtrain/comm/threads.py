"""Ranks as threads of one process: quick tests of distributed code, with a debugger at hand."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from dtrain.comm.group import Group
from dtrain.comm.shm.control import Signal
from dtrain.comm.shm.exchange import SharedMemory
from dtrain.comm.shm.segment import Layout, Segment
from dtrain.comm.single import Single
from dtrain.errors import ArgumentError, CollectiveTimeout, PeerLost

_here = threading.local()


def current() -> Group | None:
    """The world group of this rank thread, inside :func:`run_threads`."""
    return getattr(_here, "group", None)


def thread_groups(size: int, timeout: float = 60.0, chunk: int | None = None) -> list[Group]:
    """The world groups of ``size`` ranks that will be threads; element i is for rank i's thread."""
    if size < 1:
        raise ArgumentError(f"world_size must be at least 1, not {size}")
    if size == 1:
        return [Group(Single(), "threads", timeout)]
    layout, signal = Layout.default(size, chunk), Signal()
    segment = Segment.private(layout.total)
    segment.unlink()
    ranks = tuple(range(size))
    return [Group(SharedMemory(segment, layout, r, ranks, "world", timeout, signal), "threads", timeout) for r in ranks]


def run_threads(fn: Callable[..., Any], world_size: int, *args: Any, timeout: float = 60.0,
                chunk: int | None = None) -> list[Any]:
    """Call ``fn(group, *args)`` on ``world_size`` threads, each a rank with a RankState of its own; returns their results.

    The first exception that is not the echo of another is raised, with its rank. After ``timeout`` seconds the
    stacks of all ranks are printed, the group is aborted and CollectiveTimeout names the ranks that were not done.
    """
    groups = thread_groups(world_size, 0.8 * timeout, chunk)     # a stuck collective tells more than a stuck run
    ranks = [_Rank(fn, group, args) for group in groups]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + timeout
    for rank in ranks:
        rank.join(max(deadline - time.monotonic(), 0))
    late = [rank for rank in ranks if rank.is_alive()]
    failed = sorted((r for r in ranks if r.error is not None), key=lambda r: (isinstance(r.error, PeerLost), r.when))
    if late:
        raise _too_late(late, groups[0], timeout) from (failed[0].error if failed else None)
    if failed:
        failed[0].error.add_note(f"raised on rank {failed[0].group.rank} of {world_size}")
        raise failed[0].error
    return [rank.result for rank in ranks]


class _Rank(threading.Thread):
    def __init__(self, fn: Callable[..., Any], group: Group, args: tuple[Any, ...]) -> None:
        super().__init__(name=f"rank-{group.rank}", daemon=True)
        self.fn, self.group, self.args = fn, group, args
        self.result: Any = None
        self.error: BaseException | None = None
        self.when = 0.0

    def run(self) -> None:
        from dtrain.backend import state

        _here.group = self.group
        try:
            with state.use_rank(state.RankState()):
                self.result = self.fn(self.group, *self.args)
        except BaseException as error:
            self.error, self.when = error, time.monotonic()
            self.group.abort(f"rank {self.group.rank} failed with {type(error).__name__}: {error}")
        finally:
            self.group.close()
            _here.group = None


def _too_late(late: list[_Rank], group: Group, timeout: float) -> CollectiveTimeout:
    print(f"ranks were not done after {timeout:g} s; the stacks of all threads:", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.__stderr__)
    frames = sys._current_frames()
    stacks = "".join(
        f"\nrank {r.group.rank}:\n" + "".join(traceback.format_stack(frames[r.ident])[-6:]) for r in late if r.ident in frames)
    group.abort(f"the run of {group.size} ranks was not done after {timeout:g} s")
    for rank in late:
        rank.join(1.0)
    return CollectiveTimeout(f"rank(s) {', '.join(str(r.group.rank) for r in late)} were not done after {timeout:g} s{stacks}")
