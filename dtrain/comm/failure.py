"""When something goes wrong: one rank's end must become everybody's error, quickly and once.

An uncaught exception on one rank would leave the others in a collective, and the rank itself in
``MPI_Finalize``, for ever. The hooks here print the cause, tell the peers, and end the process.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

from dtrain.errors import DistributedError, PeerLost

generation = 0                                  # grows in forked children, whose copies of groups are dead
_groups: weakref.WeakSet[Any] = weakref.WeakSet()
_kill_job: list[Callable[[int], None]] = []     # how the launcher's runtime ends the whole job, if it can
_installed = False


def _after_fork() -> None:
    global generation
    generation += 1
    _groups.clear()
    _kill_job.clear()


os.register_at_fork(after_in_child=_after_fork)


def check_process(born: int, name: str) -> None:
    """Raise if the group called ``name`` belongs to the process this one was forked from."""
    if born != generation:
        raise DistributedError(
            f"group {name!r} belongs to the parent of this process: a forked child (such as a DataLoader worker) "
            "cannot take part in collectives; communicate in the main process, or start a group of its own"
        )


def register(group: Any) -> None:
    """Remember ``group`` for :func:`abort_all`."""
    _groups.add(group)


def abort_all(reason: str) -> None:
    """Make every collective of every group of this process fail on all ranks."""
    for group in list(_groups):
        group.abort(reason)


def install(rank: int, kill_job: Callable[[int], None] | None = None) -> None:
    """End the job when an exception on ``rank`` reaches the top of any thread, unless somebody sits at a prompt."""
    global _installed
    if kill_job is not None:
        _kill_job.append(kill_job)
    if _installed:
        return
    _installed = True
    sys.excepthook = _hook(rank, sys.excepthook)
    before = threading.excepthook

    def in_thread(args: Any) -> None:
        if args.exc_type is SystemExit:
            return
        _hook(rank, lambda *_: before(args))(args.exc_type, args.exc_value, args.exc_traceback)

    threading.excepthook = in_thread


def _hook(rank: int, before: Callable[..., Any]) -> Callable[..., None]:
    born = generation

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if born != generation or not _groups or hasattr(sys, "ps1") or sys.flags.interactive:
            before(kind, error, trace)
            return
        _print_cause(rank, before, kind, error, trace)
        abort_all(f"rank {rank} failed with {traceback.format_exception_only(kind, error)[-1].strip()}")
        sys.stdout.flush()
        sys.stderr.flush()
        code = 130 if issubclass(kind, KeyboardInterrupt) else 1
        for kill in _kill_job:
            kill(code)
        os._exit(code)

    return hook


def _print_cause(rank: int, before: Callable[..., Any], kind: type, error: BaseException, trace: Any) -> None:
    """The traceback; but one line for a rank that stops only because another one did."""
    if issubclass(kind, PeerLost):
        print(f"rank {rank} stops: {error}", file=sys.stderr)
    else:
        before(kind, error, trace)
