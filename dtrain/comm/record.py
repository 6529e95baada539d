"""The always-on record: what this process asked of its groups lately, for the moment when something hangs."""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import lru_cache
from typing import Any, TextIO

import numpy as np

_PACKAGE = __file__.rsplit("/comm/", 1)[0] + "/"
LENGTH = 256


class Entry:
    """One collective or message: who, what, where it was called, and how far it came."""

    __slots__ = ("group", "seq", "what", "site", "began", "state")

    def __init__(self, group: str, seq: int, what: bytes, site: bytes) -> None:
        self.group, self.seq, self.what, self.site = group, seq, what, site
        self.began = time.monotonic()
        self.state = "queued"

    def __str__(self) -> str:
        return f"#{self.seq} {self.what.decode()} at {self.site.decode()}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for reports: group, seq, what, site, state, and seconds since the call."""
        return {
            "group": self.group, "seq": self.seq, "what": self.what.decode(), "site": self.site.decode(),
            "state": self.state, "age": time.monotonic() - self.began,
        }


_ring: deque[Entry] = deque(maxlen=LENGTH)
add = _ring.append


def recent() -> list[dict[str, Any]]:
    """The last ``LENGTH`` collectives and messages of this process, oldest first."""
    return [entry.as_dict() for entry in list(_ring)]


def dump(file: TextIO | None = None, last: int = LENGTH) -> None:
    """Print the last entries, one line each."""
    for e in recent()[-last:]:
        print(f"{e['age']:9.3f} s ago  {e['group']} #{e['seq']} {e['what']} [{e['state']}] at {e['site']}",
              file=file or sys.stderr)


@lru_cache(maxsize=1024)
def describe(kind: str, detail: str, dtype: np.dtype | None, shape: tuple[int, ...] | None) -> bytes:
    """The words of a call on which all ranks must agree, e.g. ``all_reduce sum float32 (3, 4)``."""
    return " ".join(str(x) for x in (kind, detail, dtype, shape) if x is not None and x != "").encode()


@lru_cache(maxsize=4096)
def _site(filename: str, line: int) -> bytes:
    return f"{filename}:{line}".encode()[-200:]


def call_site() -> bytes:
    """``file:line`` of the nearest caller outside the library."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return _site(frame.f_code.co_filename, frame.f_lineno)
