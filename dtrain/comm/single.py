"""A world of one, which is a real group: the same calls, checked in the same way, without anybody to talk to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.comm.record import Entry
from dtrain.comm.transport import Pick, Push, Transport
from dtrain.comm.work import Work
from dtrain.errors import PeerLost

if TYPE_CHECKING:
    from dtrain.comm.group import Group
    from dtrain.comm.shm.exchange import SharedMemory

_NOTHING = np.empty(0, np.uint8)


class Single(Transport):
    """The transport of one rank, number ``ranks[0]`` of the world."""

    def __init__(self, name: str = "world", ranks: tuple[int, ...] = (0,)) -> None:
        self.rank, self.size, self.ranks, self.name = 0, 1, ranks, name
        self.inline = self.inline_reduce = 2**62
        self._reason: str | None = None
        self._to_self: SharedMemory | None = None

    def begin(self, entry: Entry, payload: np.ndarray | None, timeout: float) -> Sequence[np.ndarray]:
        if self._reason is not None:
            raise PeerLost(self._reason)
        return [_NOTHING if payload is None else payload]

    def stream(self, send: np.ndarray | None, pushes: Sequence[Push], picks: Sequence[Pick], longest: int) -> None:
        for pick in picks:
            assert send is not None
            pick.dest[...] = send[pick.start:pick.start + pick.dest.size]

    def reduce(self, flat: np.ndarray, op: str, root: int | None) -> None:
        pass                    # the sum, product, extremum and mean of one

    def reduce_scatter(self, rows: np.ndarray, op: str, out: np.ndarray) -> None:
        out[...] = rows[0]

    def _mailbox(self) -> SharedMemory:
        """Messages to oneself go through a segment of one."""
        from dtrain.comm.shm.control import Signal
        from dtrain.comm.shm.exchange import SharedMemory
        from dtrain.comm.shm.segment import Layout, Segment

        if self._to_self is None:
            layout = Layout.default(1)
            segment = Segment.private(layout.total)
            segment.unlink()
            self._to_self = SharedMemory(segment, layout, 0, self.ranks, self.name, 60.0, Signal())
        return self._to_self

    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> Work:
        return self._mailbox().isend(data, what, peer, tag)

    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int, on_done: Callable[[], None]) -> Work:
        return self._mailbox().irecv(data, what, peer, tag, on_done)

    def subgroup(self, ranks: Sequence[int], name: str, swap: Callable[[Any], list[Any]],
                 timeout: float) -> Transport | None:
        return Single(name, self.ranks) if ranks else None

    def abort(self, reason: str) -> None:
        self._reason = reason
        if self._to_self is not None:
            self._to_self.abort(reason)

    def close(self) -> None:
        if self._to_self is not None:
            self._to_self.close()


def single_group(backend: str = "single", name: str = "world", timeout: float = 1800.0) -> Group:
    """A group of this process alone."""
    from dtrain.comm.group import Group

    return Group(Single(name), backend, timeout)
