"""The launcher's end of the channel: one Link a rank, from its greeting to how it ended."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable

from dtrain.launcher import failures, wire
from dtrain.launcher.failures import Failure
from dtrain.launcher.output import Screen, Source, write_all
from dtrain.launcher.spec import LaunchSpec


class Link:
    """One rank's connection. ``rank`` is None until it has said who it is (and proved it, where the job has a key)."""

    def __init__(self, sock: socket.socket, key: str) -> None:
        self.sock, self.key = sock, key
        self.frames = wire.FrameReader()
        self.rank: int | None = None
        self.host, self.pid = "?", 0
        self.report: dict | None = None
        self.status: dict | None = None
        self.closed = False
        self.sinks: dict[int, Callable[[bytes], None]] = {}
        self.sources: list[Source] = []
        self.files: list[int] = []
        self.nonce = os.urandom(16) if key else b""
        if key:
            self.send(wire.NONCE, self.nonce)

    @property
    def done(self) -> bool:
        return self.status is not None or self.closed

    def send(self, kind: int, payload: bytes = b"") -> None:
        try:
            self.sock.sendall(wire.frame(kind, payload))
        except OSError:  # it ended; the closed connection will be read
            pass

    def receive(self, spec: LaunchSpec, screens: tuple[Screen, Screen]) -> list[Failure]:
        """Read what has come; the failures that it tells of."""
        try:
            data = self.sock.recv(1 << 18)
        except OSError:  # cut off
            data = b""
        if not data:
            return self._close()
        try:
            found = [self._take(kind, payload, spec, screens) for kind, payload in self.frames.feed(data)]
        except (wire.WireError, ValueError, KeyError, TypeError):  # not one of ours
            return self._close()
        return [failure for failure in found if failure is not None]

    def _take(self, kind: int, payload: bytes, spec: LaunchSpec, screens: tuple[Screen, Screen]) -> Failure | None:
        if self.rank is None:
            self._greet(kind, payload, spec, screens)
        elif kind in (wire.STDOUT, wire.STDERR):
            if kind in self.sinks:
                self.sinks[kind](payload)
        elif kind == wire.REPORT and self.report is None:
            self.report = json.loads(payload)
            return failures.from_report(self.rank, self.host, self.pid, self.report)
        elif kind == wire.STATUS:
            self.status = json.loads(payload)
            self.finish_output()
            if self.report is None:
                return failures.from_status(self.rank, self.host, self.pid, self.status)
        return None

    def _greet(self, kind: int, payload: bytes, spec: LaunchSpec, screens: tuple[Screen, Screen]) -> None:
        who = json.loads(payload) if kind == wire.HELLO else {}
        rank = int(who.get("rank", -1)) if isinstance(who, dict) else -1
        if not 0 <= rank < spec.size or (self.key and not wire.same(wire.proof(self.key, self.nonce, rank), str(who.get("proof")))):
            raise wire.WireError("a greeting that is not of this job")
        self.rank, self.host, self.pid = rank, str(who["host"]), int(who["pid"])
        self._open_sinks(spec, screens, int(who["local_rank"]))

    def _open_sinks(self, spec: LaunchSpec, screens: tuple[Screen, Screen], local_rank: int) -> None:
        prefix = f"[rank {self.rank}] ".encode() if spec.prefix else b""
        for bit, name, kind, screen in ((1, "stdout", wire.STDOUT, screens[0]), (2, "stderr", wire.STDERR, screens[1])):
            takers: list[Callable[[bytes], object]] = []
            if spec.to_screen(local_rank) & bit:
                self.sources.append(Source(screen, prefix, live=self.rank == 0))
                takers.append(self.sources[-1].feed)
            if spec.to_file(local_rank) & bit:
                takers.append(self._log_file(os.path.join(rank_folder(spec, self.rank), f"{name}.log")))
            self.sinks[kind] = lambda data, takers=takers: [take(data) for take in takers] and None

    def _log_file(self, path: str) -> Callable[[bytes], object]:
        """A function that appends to the file at ``path``."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.files.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))
        return write_all(self.files[-1])

    def finish_output(self) -> None:
        for source in self.sources:
            source.flush()

    def _close(self) -> list[Failure]:
        self.closed = True
        self.sock.close()
        self.finish_output()
        for fd in self.files:
            os.close(fd)
        self.files, self.sinks = [], {}
        if self.rank is None or self.status is not None or self.report is not None:
            return []
        return [Failure(self.rank, self.host, self.pid, time.time(), "lost")]


def rank_folder(spec: LaunchSpec, rank: int) -> str:
    """Where a rank's log files lie."""
    return os.path.join(spec.log_dir or ".", spec.run_id, f"rank{rank}")


def write_error_file(spec: LaunchSpec, failure: Failure) -> None:
    """Keep a failure beside the rank's logs, for programs to read."""
    folder = rank_folder(spec, failure.rank)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "error.json"), "w") as file:
        json.dump(vars(failure), file, indent=1)


def address_towards(host: str) -> str:
    """The address of this host on the way to ``host``, so that the channel listens on that network only. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return probe.getsockname()[0]


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
