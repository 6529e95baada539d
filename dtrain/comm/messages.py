"""Point to point between two ranks of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtrain.comm import record
from dtrain.comm.arrays import Staged
from dtrain.comm.record import describe
from dtrain.comm.work import Work

if TYPE_CHECKING:
    from dtrain.comm.transport import Transport


class PointToPoint:
    """Mixed into Group. A receive takes the oldest message with its tag from its peer; dtype and count must agree."""

    if TYPE_CHECKING:
        transport: Transport
        size: int

        def _enter(self, what: bytes, message: bool = False) -> record.Entry: ...
        def _member(self, rank: int, role: str) -> int: ...

    def isend(self, array: Any, peer: int, tag: int = 0) -> Work:
        """Start sending ``array`` to ``peer``; leave it as it is until the work is done."""
        return self._message("send", array, self._member(peer, "peer"), tag)

    def irecv(self, array: Any, peer: int | None = None, tag: int = 0) -> Work:
        """Start receiving into ``array`` from ``peer``, or from anybody; the work's ``source`` then says from whom."""
        return self._message("recv", array, None if peer is None else self._member(peer, "peer"), tag)

    def send(self, array: Any, peer: int, tag: int = 0) -> None:
        """Send ``array`` to ``peer``; returns when it may be changed."""
        self.isend(array, peer, tag).wait()

    def recv(self, array: Any, peer: int | None = None, tag: int = 0) -> int:
        """Receive into ``array``; returns the rank it came from."""
        work = self.irecv(array, peer, tag)
        work.wait()
        return work.source

    def _message(self, kind: str, array: Any, peer: int | None, tag: int) -> Work:
        data = Staged(array, write=kind == "recv")
        what = describe("", "", data.dtype, (data.flat.size,))
        entry = self._enter(f"{kind} {'from any' if peer is None else peer} tag {tag} {what.decode()}".encode(), True)
        if kind == "send":
            assert peer is not None
            work = self.transport.isend(data.bytes, what, peer, tag)
        else:
            work = self.transport.irecv(data.bytes, what, peer, tag, data.commit)
        entry.state = "posted"
        return work
