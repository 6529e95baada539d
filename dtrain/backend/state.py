"""State that belongs to a thread, and state that belongs to a rank.

A rank is usually a process, so by default every thread shares the process's RankState; a thread that is a rank of its
own (the `threads` backend) installs another with `use_rank`. Grad mode, autocast, dispatch modes and the default device
belong to one thread alone and start afresh in each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RankState:
    """What one rank owns: random generators by device name, the default process group, the current CUDA device."""

    __slots__ = ("generators", "group", "cuda_device")

    def __init__(self) -> None:
        self.generators: dict[str, Any] = {}
        self.group: Any = None
        self.cuda_device = 0


process_rank = RankState()


class _Local(threading.local):
    """One thread's state; `__init__` runs once in every thread that looks."""

    def __init__(self) -> None:
        self.grad_enabled = True
        self.inference = False
        self.modes: list = []               # handlers around the dispatch point, innermost last
        self.autocast: Any = None
        self.device: Any = None             # default device of new tensors; None means the CPU
        self.after_backward: list | None = None     # calls for the end of the backward pass under way
        self.rank = process_rank


local = _Local()


@contextmanager
def use_rank(rank: RankState) -> Iterator[RankState]:
    """Make the calling thread act as ``rank`` inside the block."""
    before, local.rank = local.rank, rank
    try:
        yield rank
    finally:
        local.rank = before
