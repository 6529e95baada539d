"""A rank's parent: forks the rank, passes its output on, forwards signals to it, reports its end. ``rank.py`` says why."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time

from dtrain.env import World
from dtrain.launcher import sweep, wire

LEAVING = 0.5  # seconds a failed rank gets to run its atexit handlers: MPI_Finalize would wait for ever
DRAINING = 0.2  # seconds to read on after a rank's end, where its own children still hold its streams
ABANDONED = 2.0  # seconds from SIGTERM to SIGKILL when the launcher is gone
HELD = 10.0  # seconds a failed rank's parent waits to be told to leave: mpirun kills all when it goes
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PDEATHSIG = 1  # prctl's number for "send me this signal when my parent dies"
_PRIVATE = ("DTRAIN_CHANNEL", "DTRAIN_CHANNEL_KEY", "DTRAIN_TTY", "DTRAIN_STREAMS", "DTRAIN_THREADS_PER_RANK")


def start(world: World, environ: dict[str, str], kind: str, target: str, args: list[str]) -> None:
    """Fork. In the child: run the target and return. In the parent: watch over it, then end the process."""
    sock = wire.connect(environ["DTRAIN_CHANNEL"])
    mask, size = _terminal(environ) if world.rank == 0 else (0, (0, 0))
    report_in, report_out = os.pipe()
    inherit = environ.get("DTRAIN_STREAMS") == "inherit"  # a job of one rank: its streams are the launcher's own
    streams = [] if inherit else [_stream(bool(mask & bit), size) for bit in (1, 2)]
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent, above = os.getpid(), os.getppid()
    child = os.fork()
    if child == 0:
        sock.close()
        prctl(_PDEATHSIG, int(signal.SIGKILL))  # die with the parent, however it dies
        if os.getppid() != parent:  # it died before the call
            os._exit(1)
        _become_child(streams)
        os.environ.clear()
        os.environ.update({name: value for name, value in environ.items() if name not in _PRIVATE})
        from dtrain.launcher import script

        script.run(kind, target, args, report_out)
        return
    os.close(report_out)
    for _, writer in streams:
        os.close(writer)
    prctl(_PDEATHSIG, int(signal.SIGTERM))  # mpirun's daemon on this host shall not die unnoticed either
    Parent(sock, child, [reader for reader, _ in streams], report_in, above).run(world, environ["DTRAIN_CHANNEL"], environ.get("DTRAIN_CHANNEL_KEY", ""))


def _terminal(environ: dict[str, str]) -> tuple[int, tuple[int, int]]:
    """Which streams rank 0 shall see as a terminal, as bits, and its (rows, columns)."""
    if not environ.get("DTRAIN_TTY"):
        return 0, (0, 0)
    mask, rows, columns = (int(part) for part in environ["DTRAIN_TTY"].split(";"))
    return mask, (rows, columns)


def _stream(terminal: bool, size: tuple[int, int]) -> tuple[int, int]:
    """(reading end, writing end) of a pipe, or of a pseudo-terminal so that progress bars and colours stay on."""
    if not terminal:
        return os.pipe()
    import fcntl
    import struct
    import termios

    reader, writer = os.openpty()
    modes = termios.tcgetattr(writer)
    modes[1] &= ~termios.OPOST  # newlines are left as they are written
    termios.tcsetattr(writer, termios.TCSANOW, modes)
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    return reader, writer


def _become_child(streams: list[tuple[int, int]]) -> None:
    import faulthandler

    # A group of its own: mpirun signals the parent's group, and the parent decides what reaches the rank.
    os.setpgid(0, 0)
    for (reader, writer), fd in zip(streams, (1, 2), strict=False):
        os.close(reader)
        os.dup2(writer, fd)
        os.close(writer)
    if streams:
        sys.stdout.reconfigure(line_buffering=True)  # someone watches the lines as they come
    faulthandler.enable()  # a crash in native code then shows the Python line that led to it


class Parent:
    """The loop of the process above a rank."""

    def __init__(self, sock: socket.socket, child: int, streams: list[int], report: int, above: int) -> None:
        self.sock, self.child, self.report, self.above = sock, child, report, above
        self.kinds = dict(zip(streams, (wire.STDOUT, wire.STDERR), strict=False))
        self.frames = wire.FrameReader()
        self.reported = b""
        self.asked = self.leave = False
        self.status: int | None = None
        self.began, self.ended = time.time(), 0.0
        self.deadline: float | None = None  # when the rank is killed
        self.wake, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*_FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.poll = select.poll()
        for fd in (sock.fileno(), self.report, self.wake, *self.kinds):
            self.poll.register(fd, select.POLLIN)
        self._close_others({0, 1, 2, writer, self.wake, sock.fileno(), report, *streams})

    @staticmethod
    def _close_others(kept: set[int]) -> None:
        """Let go of what mpirun handed down for the rank (MPICH's PMI socket): it shall close when the rank ends."""
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in kept:
                try:
                    os.close(int(name))
                except OSError:  # the folder's own descriptor
                    pass

    def run(self, world: World, channel: str, key: str) -> None:
        try:
            self._introduce(world, key)
            self._watch()
            self._send(wire.STATUS, self._ending())
            code = os.waitstatus_to_exitcode(self.status)  # type: ignore[arg-type]
            if code != 0:
                self._await_leave()
        except (OSError, wire.WireError):  # the launcher is gone: nobody is left to run for
            self._abandon()
            if channel.startswith("unix:"):
                sweep.remove_folder(os.path.dirname(channel[5:]))
                sweep.remove_segments(self.began)
            code = 1
        os._exit(code if code >= 0 else 128 - code)

    def _introduce(self, world: World, key: str) -> None:
        who = {"rank": world.rank, "local_rank": world.local_rank, "host": socket.gethostname(), "pid": self.child}
        if key:
            kind, nonce = wire.read_frame(self.sock)
            who["proof"] = wire.proof(key, nonce, world.rank) if kind == wire.NONCE else ""
        self._send(wire.HELLO, who)

    def _send(self, kind: int, payload: bytes | dict) -> None:
        self.sock.sendall(wire.frame(kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode()))

    def _watch(self) -> None:
        """Until the rank has ended and its streams are empty."""
        while self.status is None or (self.kinds and time.monotonic() < self.ended + DRAINING):
            self._step(0.05 if self.status is not None else None)

    def _await_leave(self) -> None:
        end = time.monotonic() + HELD
        while not self.leave and time.monotonic() < end:
            self._step(end - time.monotonic())

    def _step(self, timeout: float | None) -> None:
        if self.deadline is not None and self.status is None:
            timeout = max(0.0, self.deadline - time.monotonic())
        for fd, _ in self.poll.poll(None if timeout is None else timeout * 1000 + 1):
            self._handle(fd)
        if self.deadline is not None and self.status is None and time.monotonic() >= self.deadline:
            self._signal(signal.SIGKILL)
            self.deadline = None
        self._reap()

    def _handle(self, fd: int) -> None:
        if fd == self.wake:
            for number in os.read(fd, 64):
                if number in _FORWARDED:
                    self._forward(number)
        elif fd == self.sock.fileno():
            self._hear()
        elif fd == self.report:
            self._read_report()
        else:
            try:
                data = os.read(fd, 1 << 16)
            except OSError:  # a pseudo-terminal says EIO where a pipe says end of file
                data = b""
            if data:
                self._send(self.kinds[fd], data)
            else:
                self.poll.unregister(fd)
                del self.kinds[fd]

    def _hear(self) -> None:
        data = self.sock.recv(4096)
        if not data:
            raise wire.WireError("the launcher closed the connection")
        for kind, payload in self.frames.feed(data):
            if kind == wire.SIGNAL:
                self._forward(payload[0])
            elif kind == wire.LEAVE:
                self.leave = True

    def _read_report(self) -> None:
        data = os.read(self.report, 1 << 16)
        self.reported += data
        if self.reported.endswith(b"\n"):
            self._send(wire.REPORT, self.reported[:-1])
            self.reported = b""
            self.deadline = time.monotonic() + LEAVING
        if not data:
            self.poll.unregister(self.report)

    def _forward(self, number: int) -> None:
        if self.deadline is not None and number == signal.SIGTERM:
            return  # it has failed and is leaving, and has its own time to do so
        self.asked = self.asked or number in _ENDING or number == signal.SIGKILL
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self.status is None:
            os.kill(self.child, number)  # not yet waited for: the number is still this child's

    def _reap(self) -> None:
        if self.status is None:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.status, self.ended, self.time = status, time.monotonic(), time.time()

    def _ending(self) -> dict:
        code = os.waitstatus_to_exitcode(self.status)  # type: ignore[arg-type]
        orphaned = os.getppid() != self.above
        return {"code": max(code, 0), "signal": max(-code, 0), "asked": self.asked, "orphaned": orphaned, "time": self.time}

    def _abandon(self) -> None:
        """The launcher is gone: end the rank and what it started in its group."""
        for number, seconds in ((signal.SIGTERM, ABANDONED), (signal.SIGKILL, 1.0)):
            try:
                os.killpg(self.child, number)
            except OSError:  # all gone
                return
            end = time.monotonic() + seconds
            while time.monotonic() < end and self._group_lives():
                time.sleep(0.02)

    def _group_lives(self) -> bool:
        self._reap()
        try:
            os.killpg(self.child, 0)
        except OSError:
            return False
        return True
