"""Sleeping until another process writes a word of shared memory: Linux's futex, through ctypes, which lets the GIL go."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

_NUMBERS = {"x86_64": 202, "aarch64": 98}
_WAIT, _WAKE, _ALL = 0, 1, 2**31 - 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class Futex:
    """Waits and wakes on 64-bit words that start at address ``base``."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._number = _NUMBERS.get(platform.machine())
        self._syscall: Any = ctypes.CDLL(None).syscall

    @property
    def works(self) -> bool:
        """Whether this machine's number of the call is known."""
        return self._number is not None

    def wait(self, word: int, value: int, timeout: float) -> None:
        """Sleep while word number ``word`` holds ``value``, at most ``timeout`` (below 1) seconds."""
        limit = _Timespec(0, int(timeout * 1e9))
        self._syscall(self._number, ctypes.c_void_p(self._base + 8 * word), _WAIT, ctypes.c_uint32(value & 0xFFFFFFFF),
                      ctypes.byref(limit), None, 0)

    def wake(self, word: int) -> None:
        """Wake all who sleep on word number ``word``."""
        self._syscall(self._number, ctypes.c_void_p(self._base + 8 * word), _WAKE, _ALL, None, None, 0)
