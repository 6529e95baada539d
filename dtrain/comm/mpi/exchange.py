"""Collectives between nodes: bytes from rank to rank, reduced here in rank order, so results are the same bits everywhere."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dtrain.comm.arrays import as_bytes
from dtrain.comm.mpi.link import TAG, Link
from dtrain.comm.mpi.messages import Messages
from dtrain.comm.record import Entry
from dtrain.comm.reduction import combine
from dtrain.comm.shm.exchange import subgroup_in_memory
from dtrain.comm.transport import Pick, Push, Transport, mismatch, parts
from dtrain.comm.work import Work

_HEAD = struct.Struct("<QIII4x")        # seq, bytes of the two texts, bytes of payload
_TEXTS = 1000
_PAIRS = 64                             # up to so many ranks swap headers in pairs, which names who is missing
_SCRATCH = 32 * 2**20                   # bytes that a reduction holds at a time


class MpiTransport(Transport):
    """Rank ``comm.rank`` of ``comm``. ``nodes`` says which ranks share one; groups within a node use its memory."""

    def __init__(self, MPI: Any, comm: Any, ranks: tuple[int, ...], nodes: Sequence[str], name: str, timeout: float,
                 limit: int | None = None, shared_memory: bool = True) -> None:
        self.MPI, self.comm, self.ranks, self.name = MPI, comm, ranks, name
        self.rank, self.size, self.nodes = comm.rank, comm.size, nodes
        self.inline = self.inline_reduce = max(4096, 16 * self.size + 64)
        self.link = Link(MPI, comm, ranks, timeout, limit)
        self._limit, self._memory = limit, shared_memory
        self._messages = Messages(self.link, comm.Dup(), comm.Dup(), name)
        self._blocks = np.empty((self.size, _HEAD.size + _TEXTS + self.inline), np.uint8)

    # -- headers -------------------------------------------------------------------------------------

    def begin(self, entry: Entry, payload: np.ndarray | None, timeout: float) -> Sequence[np.ndarray]:
        self.link.check()
        self.link.deadline = time.monotonic() + timeout
        mine = self._pack(entry, payload)
        self._swap(mine) if self.size <= _PAIRS else self._swap_at_once()
        found = [self._unpack(block) for block in self._blocks]
        if any(f[:2] != found[self.rank][:2] for f in found):
            raise mismatch(self.name, [(r, seq, what.decode(), site.decode())
                                       for r, (seq, what, site, _) in zip(self.ranks, found)])
        return [payload for *_, payload in found]

    def _pack(self, entry: Entry, payload: np.ndarray | None) -> np.ndarray:
        what, site, count = entry.what[:_TEXTS - 200], entry.site, 0 if payload is None else payload.size
        head = _HEAD.pack(entry.seq, len(what), len(site), count) + what + site
        block = self._blocks[self.rank]
        block[:len(head)] = np.frombuffer(head, np.uint8)
        if payload is not None:
            block[len(head):len(head) + count] = payload
        return block[:len(head) + count]

    def _unpack(self, block: np.ndarray) -> tuple[int, bytes, bytes, np.ndarray]:
        seq, what, site, count = _HEAD.unpack(block[:_HEAD.size].tobytes())
        text = block[_HEAD.size:_HEAD.size + what + site].tobytes()
        start = _HEAD.size + what + site
        return seq, text[:what], text[what:], block[start:start + count]

    def _swap(self, mine: np.ndarray) -> None:
        others = [peer for peer in range(self.size) if peer != self.rank]
        with self.link.calling():
            requests = [(peer, self.comm.Irecv(self._blocks[peer], peer, TAG)) for peer in others]
            requests += [(peer, self.comm.Isend(mine, peer, TAG)) for peer in others]
        self.link.wait(requests, self.link.deadline)

    def _swap_at_once(self) -> None:
        mine = self._blocks[self.rank].copy()
        with self.link.calling():
            request = self.comm.Iallgather(mine, self._blocks)
        self.link.wait([(None, request)], self.link.deadline)

    # -- data ----------------------------------------------------------------------------------------

    def stream(self, send: np.ndarray | None, pushes: Sequence[Push], picks: Sequence[Pick], longest: int) -> None:
        for pick in picks:
            if pick.peer == self.rank:
                assert send is not None
                pick.dest[...] = send[pick.start:pick.start + pick.dest.size]
        self.link.exchange(
            [(push.peer, send[push.start:push.stop]) for push in pushes if push.peer != self.rank and send is not None],
            [(pick.peer, pick.dest) for pick in picks if pick.peer != self.rank])

    def broadcast(self, data: np.ndarray, root: int) -> None:
        """A tree of MPI's."""
        for piece in self.link.pieces(data):
            with self.link.calling():
                request = self.comm.Ibcast(piece, root)
            self.link.wait([(root, request)], self.link.deadline)

    def reduce(self, flat: np.ndarray, op: str, root: int | None) -> None:
        step = max(_SCRATCH // flat.dtype.itemsize, 1)
        for low in range(0, flat.size, step):
            self._reduce_block(flat[low:low + step], op, root)

    def _reduce_block(self, block: np.ndarray, op: str, root: int | None) -> None:
        """Everybody reduces one part of ``block`` and sends the result to those who want it."""
        cuts, peers = parts(block.size, self.size), [p for p in range(self.size) if p != self.rank]
        own, wants = cuts[self.rank], root is None or root == self.rank
        theirs = np.empty((self.size, own.stop - own.start), block.dtype)
        self.link.exchange([(p, as_bytes(block[cuts[p]])) for p in peers], [(p, as_bytes(theirs[p])) for p in peers])
        theirs[self.rank] = block[own]
        result = np.empty_like(theirs[0])
        if result.size:
            combine(list(theirs), op, result)
        self.link.exchange([(p, as_bytes(result)) for p in peers if root is None or p == root],
                           [(p, as_bytes(block[cuts[p]])) for p in peers if wants])
        if wants:
            block[own] = result

    def reduce_scatter(self, rows: np.ndarray, op: str, out: np.ndarray) -> None:
        step = max(_SCRATCH // (out.dtype.itemsize * self.size), 1)
        peers = [p for p in range(self.size) if p != self.rank]
        for low in range(0, out.size, step):
            block, here = rows[:, low:low + step], out[low:low + step]
            theirs = np.empty((self.size, here.size), out.dtype)
            self.link.exchange([(p, as_bytes(block[p])) for p in peers], [(p, as_bytes(theirs[p])) for p in peers])
            theirs[self.rank] = block[self.rank]
            combine(list(theirs), op, here)

    # -- the rest ------------------------------------------------------------------------------------

    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> Work:
        return self._messages.isend(data, what, peer, tag)

    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int, on_done: Callable[[], None]) -> Work:
        return self._messages.irecv(data, what, peer, tag, on_done)

    def subgroup(self, ranks: Sequence[int], name: str, swap: Callable[[Any], list[Any]],
                 timeout: float) -> Transport | None:
        """Memory where the members share a node, else a communicator; every rank makes both calls."""
        member, nodes = self.rank in ranks, [self.nodes[r] for r in ranks]
        inside = len(ranks) == 1 or (self._memory and len(set(nodes)) == 1)
        memory = subgroup_in_memory(self, ranks if inside else [], name, swap, timeout)
        joins = member and not inside
        comm = self.comm.Split(ranks[0] if joins else self.MPI.UNDEFINED, list(ranks).index(self.rank) if joins else 0)
        if not joins:
            return memory
        return MpiTransport(self.MPI, comm, tuple(self.ranks[r] for r in ranks), nodes, name, timeout, self._limit, self._memory)

    def abort(self, reason: str) -> None:
        self.link.abort(reason)

    def close(self) -> None:
        self._messages.close()
        self.link.close()
