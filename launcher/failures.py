"""What went wrong first: from the ends of all ranks to one root cause, in words."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

# Errors that tell of another rank's end. A rank that reports one is a victim if any rank reports something else.
_ECHOES = ("PeerLost", "CollectiveTimeout", "ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError", "EOFError", "mpi4py.MPI.Exception")
SETTLE = 0.1  # seconds in which other ranks may still report after a first failure
SETTLE_ECHO = 0.6  # ... and after an echo: the cause itself is still on its way


@dataclass(frozen=True)
class Failure:
    """How one rank failed. ``kind``: "raised", "exited", "killed", "orphaned" (mpirun's daemon above it died) or
    "lost" (its connection closed without a word)."""

    rank: int
    host: str
    pid: int
    time: float
    kind: str
    code: int = 1
    signal: int = 0
    type: str = ""
    message: str = ""
    traceback: str = ""

    @property
    def is_echo(self) -> bool:
        return self.kind == "raised" and self.type.endswith(_ECHOES)

    @property
    def exit_code(self) -> int:
        if self.kind == "killed":
            return 128 + self.signal
        return self.code or 1


def root_cause(failures: Iterable[Failure]) -> Failure | None:
    """The first failure that is not an echo of another; where all are echoes, the first."""
    return min(failures, key=lambda failure: (failure.is_echo, failure.time, failure.rank), default=None)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def describe(failure: Failure) -> str:
    """One line: which rank, where, and what."""
    who = f"rank {failure.rank} ({failure.host}, pid {failure.pid})"
    if failure.kind == "killed":
        return f"{who} was killed by signal {failure.signal} ({signal_name(failure.signal)}){_hint(failure.signal)}"
    if failure.kind == "lost":
        return f"{who} vanished without a word: it and its parent were killed, or its host went down"
    if failure.kind == "orphaned":
        return f"{who} was ended because the process of mpirun above it died"
    if failure.kind == "raised" and failure.type == "KeyboardInterrupt":
        return f"{who} was interrupted (SIGINT)"
    if failure.kind == "raised":
        first, _, rest = failure.message.strip().partition("\n")
        return f"{who} raised {failure.type}" + (f": {first}" if first else "") + (" [...]" if rest else "")
    said = f": {failure.message.strip()}" if failure.message.strip() else ""
    return f"{who} exited with code {failure.code}{said}"


def _hint(number: int) -> str:
    if number == signal.SIGKILL:
        return "; if nobody did it by hand, the kernel may have run out of memory (see dmesg)"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return "; the Python lines that led to it are in its output above"
    return ""


def from_report(rank: int, host: str, pid: int, values: dict) -> Failure:
    """A Failure from what a rank reported of itself."""
    kind = "exited" if values["type"] == "SystemExit" else "raised"
    return Failure(
        rank, host, pid, float(values["time"]), kind, int(values["code"]),
        type=str(values["type"]), message=str(values["message"]), traceback=str(values["traceback"]),
    )  # fmt: skip


def from_status(rank: int, host: str, pid: int, values: dict) -> Failure | None:
    """A Failure from how a rank's process ended; None where it ended well or because it was told to."""
    if values.get("orphaned"):
        return Failure(rank, host, pid, float(values["time"]), "orphaned")
    if values["signal"]:
        told = values["asked"] and values["signal"] in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
        return None if told else Failure(rank, host, pid, float(values["time"]), "killed", signal=int(values["signal"]))
    if values["code"] == 0 or values["asked"]:
        return None
    return Failure(rank, host, pid, float(values["time"]), "exited", int(values["code"]))
