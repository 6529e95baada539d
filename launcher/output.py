"""Many ranks, one screen: whole lines, each with its rank in front; rank 0's progress bar kept alive below them.

A progress bar is text after a carriage return, rewritten in place. Rank 0's is passed through as it is written; when any
other line has to be printed, the bar is wiped, the line printed, and the bar drawn again. Of other ranks' bars only the final state is
shown, as a line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable


class Screen:
    """One place where text ends up: a terminal or a file, perhaps shared by stdout and stderr."""

    def __init__(self, write: Callable[[bytes], object], terminal: bool) -> None:
        self.write, self.terminal = write, terminal
        self.owner: object = None  # who wrote the unfinished line that the cursor stands in
        self.unfinished = b""

    def line(self, owner: object, text: bytes) -> None:
        """Print ``text`` as a line of its own, or as the rest of ``owner``'s unfinished line."""
        if self.owner is None or self.owner is owner:
            self.owner, self.unfinished = None, b""
            self.write(text + b"\n")
        elif self.terminal:
            self.write(b"\r\x1b[K" + text + b"\n" + self.unfinished)
        else:
            self.owner, self.unfinished = None, b""
            self.write(b"\n" + text + b"\n")

    def part(self, owner: object, text: bytes) -> None:
        """Print ``text`` and stay in its line."""
        if self.owner not in (None, owner):
            self.close()
        self.owner = owner
        self.unfinished = (self.unfinished + text).rpartition(b"\r")[2]
        self.write(text)

    def close(self) -> None:
        """End the unfinished line, if there is one."""
        if self.owner is not None:
            self.owner, self.unfinished = None, b""
            self.write(b"\n")


class Source:
    """One stream of one rank. ``live``: its unfinished lines are shown as they grow (rank 0's)."""

    LIMIT = 1 << 20  # a line longer than this is cut: a rank gone wild must not fill the launcher's memory

    def __init__(self, screen: Screen | None, prefix: bytes, live: bool) -> None:
        self.screen, self.prefix, self.live = screen, prefix, live
        self.held = b""
        self.since = 0.0

    def feed(self, data: bytes) -> None:
        """Take what the rank wrote."""
        if self.screen is None:
            return
        *lines, rest = (self.held + data).split(b"\n")
        self.held = b""
        for line in lines:
            self._line(line)
        self._rest(rest)

    def flush(self, idle: float = 0.0) -> None:
        """Show what is held back: all of it, or a live source's when nothing came for ``idle`` seconds."""
        if not self.held or (idle and (not self.live or time.monotonic() - self.since < idle)):
            return
        held, self.held = self.held, b""
        if idle:
            self.screen.part(self, self.prefix + held)
        else:
            self._line(held)

    def _line(self, text: bytes) -> None:
        text = text.removesuffix(b"\r")
        mine = self.screen.owner is self
        if mine and (self.screen.unfinished.strip() or text.startswith(b"\r")):
            self.screen.line(self, text)
        elif b"\r" in text:  # a bar that ran to its end at once: its last state
            final = text.rpartition(b"\r")[2]
            self.screen.line(self, final if self.live else self.prefix + final)
        else:
            self.screen.line(self, self.prefix + text)

    def _rest(self, text: bytes) -> None:
        if not text:
            return
        if self.screen.owner is self or (self.live and b"\r" in text):
            self.screen.part(self, text)
            return
        if not self.live:
            text = _last_state(text)
        if len(text) > self.LIMIT:
            self._line(text)
        else:
            self.held, self.since = text, time.monotonic()


def _last_state(text: bytes) -> bytes:
    """The last states of a bar, which is all that a terminal would show of ``text`` once more follows."""
    before = text.rpartition(b"\r")[0]
    return before.rpartition(b"\r")[2] + text[len(before) :]


def write_all(fd: int) -> Callable[[bytes], None]:
    """A function that writes all it is given to ``fd``, unbuffered. A full disk loses output, not the training."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BrokenPipeError:  # the reader has gone, as in `dtrain run ... | head`: the job is told
            raise
        except OSError:
            pass

    return write


def screens(out: int = 1, err: int = 2) -> tuple[Screen, Screen]:
    """The screens behind two descriptors; one and the same where both lead to the same place."""
    first = Screen(write_all(out), os.isatty(out))
    try:
        one, other = os.fstat(out), os.fstat(err)
    except OSError:
        return first, first
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        return first, first
    return first, Screen(write_all(err), os.isatty(err))
