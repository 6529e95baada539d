"""What moves bytes between the ranks of a group: the interface, and the arithmetic all transports share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtrain.comm.record import Entry
from dtrain.comm.work import Work
from dtrain.errors import CollectiveMismatch

@dataclass(frozen=True)
class Push:
    """Bytes [start, stop) of what this rank sends are for ``peer``."""

    peer: int
    start: int
    stop: int


@dataclass(frozen=True)
class Pick:
    """Bytes [start, start + dest.size) of what ``peer`` sends belong in ``dest`` (uint8)."""

    peer: int
    start: int
    dest: np.ndarray

    def overlap(self, low: int, high: int) -> tuple[int, int]:
        """The part of the pick inside [low, high) of the peer's bytes; empty if first >= second."""
        return max(low, self.start), min(high, self.start + self.dest.size)


def parts(length: int, size: int, align: int = 16) -> list[slice]:
    """``length`` elements cut into ``size`` consecutive slices, one per rank, at multiples of ``align``."""
    step = -(-length // size)
    step = -(-step // align) * align
    return [slice(min(i * step, length), min((i + 1) * step, length)) for i in range(size)]


def mismatch(group: str, headers: Sequence[tuple[int, int, str, str]]) -> CollectiveMismatch:
    """The error for ``headers`` = (global rank, seq, what, site) that differ, ranks that agree on one line."""
    same: dict[tuple[int, str, str], list[int]] = {}
    for rank, seq, what, site in headers:
        same.setdefault((seq, what, site), []).append(rank)
    lines = [
        f"  rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}: #{seq} {what} at {site}"
        for (seq, what, site), ranks in same.items()
    ]
    return CollectiveMismatch(
        f"ranks of group {group!r} called different collectives:\n" + "\n".join(lines)
        + "\nevery rank must make the same calls in the same order, with the same shapes and dtypes"
    )


class Transport(ABC):
    """Bytes between ``size`` ranks. Calls come one at a time; all ranks make the same ones in the same order."""

    rank: int
    size: int
    ranks: tuple[int, ...]          # global ranks, for messages
    name: str
    inline: int                     # bytes that fit beside a header
    inline_reduce: int              # the same where everybody would reduce everything: cheaper than more rounds up to here

    @abstractmethod
    def begin(self, entry: Entry, payload: np.ndarray | None, timeout: float) -> Sequence[np.ndarray]:
        """Open a collective: compare ``entry`` with everybody's, swap payloads (uint8, at most ``inline`` bytes).

        Returns every rank's payload, valid until the next call. Raises CollectiveMismatch on all ranks.
        """

    @abstractmethod
    def stream(self, send: np.ndarray | None, pushes: Sequence[Push], picks: Sequence[Pick], longest: int) -> None:
        """Send ``pushes`` of ``send`` (uint8) and take ``picks``, each of which has its push on the other side.

        ``longest`` is the largest ``send`` of any rank.
        """

    @abstractmethod
    def reduce(self, flat: np.ndarray, op: str, root: int | None) -> None:
        """Reduce ``flat`` over the ranks, in place, on rank ``root`` only or everywhere (None)."""

    @abstractmethod
    def reduce_scatter(self, rows: np.ndarray, op: str, out: np.ndarray) -> None:
        """Reduce ``rows`` (size, n) over the ranks; rank i gets row i in ``out`` (n,)."""

    @abstractmethod
    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> Work:
        """Start sending ``data`` (uint8) to ``peer``."""

    @abstractmethod
    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int, on_done: Callable[[], None]) -> Work:
        """Start receiving into ``data`` (uint8) from ``peer`` or anybody; the work gets ``.source`` and calls ``on_done``."""

    @abstractmethod
    def subgroup(self, ranks: Sequence[int], name: str, swap: Callable[[Any], list[Any]],
                 timeout: float) -> Transport | None:
        """A transport for ``ranks`` (of this group); None on ranks outside. ``swap`` gathers an object of each rank.

        Collective over this transport, also for ranks that join nothing (``ranks`` empty).
        """

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Make every wait of every rank fail with ``reason``. Safe from any thread, never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Tell the others that this rank takes no further part."""

    def broadcast(self, data: np.ndarray, root: int) -> None:
        """Copy ``data`` (uint8) of ``root`` to all."""
        if self.rank == root:
            self.stream(data, self.to_all(data.size), (), data.size)
        else:
            self.stream(None, (), (Pick(root, 0, data),), data.size)

    def all_gather(self, out: np.ndarray, data: np.ndarray) -> None:
        """Copy ``data`` (uint8, n) of rank i to ``out[i]`` (size, n) everywhere."""
        self.stream(data, self.to_all(data.size), [Pick(peer, 0, out[peer]) for peer in range(self.size)], data.size)

    def to_all(self, length: int) -> list[Push]:
        """Everything to everybody else."""
        return [Push(peer, 0, length) for peer in range(self.size) if peer != self.rank]
