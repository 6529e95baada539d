"""A group: ranks that talk to each other over arrays. One class for every backend; transports move the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from dtrain.comm import failure, record
from dtrain.comm.collectives import Collectives
from dtrain.comm.messages import PointToPoint
from dtrain.comm.objects import Objects
from dtrain.comm.record import Entry
from dtrain.comm.transport import Transport
from dtrain.comm.work import Turns, Work
from dtrain.errors import ArgumentError, CollectiveTimeout, DistributedError, PeerLost

DEFAULT_TIMEOUT = 1800.0            # seconds, as in PyTorch for CPU groups


class Group(Collectives, PointToPoint, Objects):
    """``size`` ranks, of which this is number ``rank``; ``ranks`` are their numbers in the world.

    Collectives are in place over NumPy or CuPy arrays of any layout and all numeric dtypes, and return a Work. With
    ``async_op=True`` they run in the order of the calls on one thread of the group; a synchronous call waits for those
    before it. All members must make the same calls in the same order. Any thread may call, one group per thread is
    simplest. ``timeout`` seconds is the deadline of every wait. Never call collectives from ``__del__``.
    """

    def __init__(self, transport: Transport, backend: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.transport = transport
        self.rank, self.size, self.ranks = transport.rank, transport.size, transport.ranks
        self.name, self.backend, self.timeout = transport.name, backend, timeout
        self._turns = Turns(self.name)
        self._calls, self._children = [0, 0], 0
        self._numbering = threading.Lock()
        self._born = failure.generation
        self._closed = False
        failure.register(self)

    def __repr__(self) -> str:
        return f"Group({self.name!r}, rank {self.rank} of {self.size}, ranks {list(self.ranks)}, {self.backend})"

    # -- how a call runs -----------------------------------------------------------------------------

    def _enter(self, what: bytes, message: bool = False) -> Entry:
        """Number and record a call; messages count apart, since not all ranks send as many."""
        failure.check_process(self._born, self.name)
        if self._closed:
            raise DistributedError(f"group {self.name!r} is closed")
        with self._numbering:
            self._calls[message] += 1
            entry = Entry(self.name, self._calls[message], what, record.call_site())
        record.add(entry)
        return entry

    def _collective(self, what: bytes, body: Callable[[Entry], Any], async_op: bool) -> Work:
        """Run ``body`` in its turn: now, or on the communication thread."""
        entry = self._enter(what)
        run = self._turns.submit if async_op and self.size > 1 else self._turns.run
        return run(lambda: self._execute(entry, body), entry)

    def _execute(self, entry: Entry, body: Callable[[Entry], Any]) -> None:
        entry.state = "running"
        try:
            body(entry)
        except (PeerLost, CollectiveTimeout) as error:
            entry.state = "failed"
            raise type(error)(f"in {entry} of group {self.name!r}: {error}") from None
        except BaseException as error:
            entry.state = "failed"
            if not isinstance(error, DistributedError):     # such as Ctrl-C between two rounds: no way to go on
                self.abort(f"rank {self.ranks[self.rank]} left {entry} with {type(error).__name__}: {error}")
            raise
        entry.state = "done"

    def _member(self, rank: int, role: str) -> int:
        if not isinstance(rank, int) or not 0 <= rank < self.size:
            raise ArgumentError(f"{role}={rank!r} is not a rank of group {self.name!r}, which has ranks 0 to {self.size - 1}")
        return rank

    # -- groups within the group ---------------------------------------------------------------------

    def new_group(self, ranks: Sequence[int] | None = None, name: str | None = None,
                  timeout: float | None = None) -> Group | None:
        """A group of these ranks of this group (all of them if None). All ranks of this group must call it.

        Returns None on ranks that are not members.
        """
        ranks = list(range(self.size)) if ranks is None else [self._member(r, "ranks") for r in ranks]
        if not ranks or len(set(ranks)) != len(ranks):
            raise ArgumentError(f"ranks of a new group must be different and at least one, not {ranks}")
        agreed = self.all_gather_object((ranks, name))
        if any(other != agreed[0] for other in agreed):
            raise ArgumentError(f"ranks called new_group with different arguments: {agreed}")
        return self._subgroup(ranks, name, timeout)

    def split(self, color: int | None, key: int = 0, timeout: float | None = None) -> Group | None:
        """One group per ``color``, ordered by ``key``, then by rank; None joins no group. All ranks must call it."""
        chosen = self.all_gather_object((color, key))
        ranks = sorted((r for r in range(self.size) if chosen[r][0] == color), key=lambda r: (chosen[r][1], r))
        return self._subgroup(ranks if color is not None else [], None, timeout)

    def _subgroup(self, ranks: Sequence[int], name: str | None, timeout: float | None) -> Group | None:
        """Collective over this group, like all that leads here: ranks without ``ranks`` take part and get None."""
        self._children += 1
        name = name or f"{self.name}/{self._children}"
        transport = self.transport.subgroup(ranks, name, self.all_gather_object, timeout or self.timeout)
        return Group(transport, self.backend, timeout or self.timeout) if transport is not None else None

    # -- the end -------------------------------------------------------------------------------------

    def abort(self, reason: str = "aborted") -> None:
        """Make every present and future call on this group fail with ``reason``, on all ranks. Never blocks."""
        if self._born == failure.generation:
            self.transport.abort(reason)

    def close(self, timeout: float | None = None) -> None:
        """Finish what was queued, in ``timeout`` seconds at most, and leave. Others learn of it if they still wait for this rank."""
        if self._closed or self._born != failure.generation:
            return
        if not self._turns.close(self.timeout if timeout is None else timeout):
            self.abort(f"rank {self.ranks[self.rank]} left group {self.name!r} while asynchronous collectives were under way")
        self._closed = True
        self.transport.close()
