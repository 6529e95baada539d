"""Collectives through shared memory: everybody writes a chunk into its slot, posts a round, waits, and reads.

Rounds are numbered through the life of the group. Slots, result areas and headers exist twice and are used in
turns: whoever has seen all ranks post round r + 1 knows that all have read round r, so one wait per round is
enough and there is no closing barrier.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from dtrain.comm.record import Entry
from dtrain.comm.reduction import combine
from dtrain.comm.shm.control import Control, Signal
from dtrain.comm.shm.messages import Messages
from dtrain.comm.shm.segment import Layout, Segment
from dtrain.comm.single import Single
from dtrain.comm.transport import Pick, Push, Transport, mismatch, parts
from dtrain.comm.work import Work
from dtrain.errors import DistributedError

_FIXED = 24                     # seq, lengths of the two texts, bytes of payload: three words
_WHAT = 600
_READ = 2**20                   # bytes that a rank reads from others' slots in the time that two more rounds take


@lru_cache(maxsize=1024)
def _fitted(what: bytes) -> bytes:
    return what if len(what) <= _WHAT else what[:_WHAT - 9] + b" %08x" % zlib.crc32(what)


class SharedMemory(Transport):
    """Rank ``rank`` of ``size`` in ``segment``; ``signal`` wakes waiting threads where ranks are threads."""

    def __init__(self, segment: Segment, layout: Layout, rank: int, ranks: tuple[int, ...], name: str,
                 timeout: float, signal: Signal | None = None) -> None:
        self.rank, self.size, self.ranks, self.name = rank, layout.size, ranks, name
        self.segment, self.layout, self._signal = segment, layout, signal
        self.control = Control(segment, layout, rank, ranks, timeout, signal)
        self.control.last_call = self._last_call
        self.inline = layout.chunk
        self.inline_reduce = min(layout.chunk, _READ // max(layout.size - 1, 1))
        self._round = 0
        everyone = range(layout.size)
        self._headers = [[layout.header(r, p) for r in everyone] for p in (0, 1)]
        self._slots = [[self._area(layout.slot(r, p), layout.chunk) for r in everyone] for p in (0, 1)]
        self._results = [[self._area(layout.result(r, p), layout.result_stride) for r in everyone] for p in (0, 1)]
        self._messages = Messages(segment, layout, self.control, name)

    def _area(self, start: int, length: int) -> np.ndarray:
        return self.segment.array[start:start + length]

    def _next(self) -> None:
        """Publish what was written into the areas of this round's parity and wait for the others."""
        self._round += 1
        self.control.post(self._round)
        self.control.wait_all(self._round)

    # -- headers -------------------------------------------------------------------------------------

    def begin(self, entry: Entry, payload: np.ndarray | None, timeout: float) -> Sequence[np.ndarray]:
        control = self.control
        control.check()
        control.deadline = time.monotonic() + timeout
        parity = (self._round + 1) & 1
        headers, slots = self._headers[parity], self._slots[parity]
        count = 0 if payload is None else payload.size
        mine = self._write_header(headers[self.rank], entry, count)
        if count:
            slots[self.rank][:count] = payload
        self._next()
        words, raw, size = control.words, control.raw, mine[1]
        for at in headers:
            w = at // 8
            if words[w] != entry.seq or words[w + 1] & 0xFFFFFFFF != size or raw[at + _FIXED:at + _FIXED + size] != mine[0]:
                raise mismatch(self.name, [(self.ranks[r], *self._read_header(h)) for r, h in enumerate(headers)])
        return [slot[:words[at // 8 + 2]] for slot, at in zip(slots, headers)]

    def _write_header(self, at: int, entry: Entry, count: int) -> tuple[bytes, int]:
        what, site, words = _fitted(entry.what), entry.site, self.control.words
        w, size = at // 8, len(what)
        words[w] = entry.seq
        words[w + 1] = size | len(site) << 32
        words[w + 2] = count
        at += _FIXED
        self.control.raw[at:at + size + len(site)] = what + site
        return what, size

    def _read_header(self, at: int) -> tuple[int, str, str]:
        words, w = self.control.words, at // 8
        size, site = words[w + 1] & 0xFFFFFFFF, words[w + 1] >> 32
        text = bytes(self.control.raw[at + _FIXED:at + _FIXED + size + site])
        return words[w], text[:size].decode(errors="replace"), text[size:].decode(errors="replace")

    def _last_call(self, r: int) -> str:
        seq, what, site = max(self._read_header(self._headers[p][r]) for p in (0, 1))
        return f" (last call: #{seq} {what} at {site})" if what else " (no call yet)"

    # -- data ----------------------------------------------------------------------------------------

    def stream(self, send: np.ndarray | None, pushes: Sequence[Push], picks: Sequence[Pick], longest: int) -> None:
        chunk = self.layout.chunk
        for pick in picks:
            if pick.peer == self.rank:
                assert send is not None
                pick.dest[...] = send[pick.start:pick.start + pick.dest.size]
        picks = [pick for pick in picks if pick.peer != self.rank]
        for low in range(0, longest, chunk):
            slots = self._slots[(self._round + 1) & 1]
            if send is not None and low < send.size:
                piece = send[low:low + chunk]
                slots[self.rank][:piece.size] = piece
            self._next()
            for pick in picks:
                a, b = pick.overlap(low, low + chunk)
                if a < b:
                    pick.dest[a - pick.start:b - pick.start] = slots[pick.peer][a - low:b - low]

    def reduce(self, flat: np.ndarray, op: str, root: int | None) -> None:
        """Round r: put chunk r into the slots, reduce the own part of chunk r - 1; after the wait, take its result."""
        step = self.layout.chunk // flat.dtype.itemsize
        chunks = [flat[low:low + step] for low in range(0, flat.size, step)]
        wants = root is None or root == self.rank
        for r in range(len(chunks) + 1):
            parity = (self._round + 1) & 1
            if r < len(chunks):
                self._offer(chunks[r], self._slots[parity][self.rank])
            if r:
                self._reduce_part(chunks[r - 1], op, self._slots[parity ^ 1], self._results[parity][self.rank])
            self._next()
            if r and wants:
                self._take(chunks[r - 1], self._results[parity])

    def _offer(self, chunk: np.ndarray, slot: np.ndarray) -> None:
        """Write what the others will reduce: everything but the own part."""
        there, own = _typed(slot, chunk), parts(chunk.size, self.size)[self.rank]
        there[:own.start] = chunk[:own.start]
        there[own.stop:] = chunk[own.stop:]

    def _reduce_part(self, chunk: np.ndarray, op: str, slots: Sequence[np.ndarray], result: np.ndarray) -> None:
        own = parts(chunk.size, self.size)[self.rank]
        if own.start < own.stop:
            theirs = [chunk[own] if r == self.rank else _typed(slot, chunk)[own] for r, slot in enumerate(slots)]
            combine(theirs, op, _typed(result, chunk[own]))

    def _take(self, chunk: np.ndarray, results: Sequence[np.ndarray]) -> None:
        for part, result in zip(parts(chunk.size, self.size), results):
            if part.start < part.stop:
                chunk[part] = _typed(result, chunk[part])

    def reduce_scatter(self, rows: np.ndarray, op: str, out: np.ndarray) -> None:
        step = max(self.layout.chunk // (out.dtype.itemsize * self.size), 1)
        for low in range(0, out.size, step):
            slots = self._slots[(self._round + 1) & 1]
            block = rows[:, low:low + step]
            _typed(slots[self.rank], block)[...] = block
            self._next()
            combine([_typed(slot, block)[self.rank] for slot in slots], op, out[low:low + step])

    # -- the rest ------------------------------------------------------------------------------------

    def isend(self, data: np.ndarray, what: bytes, peer: int, tag: int) -> Work:
        return self._messages.isend(data, what, peer, tag)

    def irecv(self, data: np.ndarray, what: bytes, peer: int | None, tag: int, on_done: Callable[[], None]) -> Work:
        return self._messages.irecv(data, what, peer, tag, on_done)

    def subgroup(self, ranks: Sequence[int], name: str, swap: Callable[[Any], list[Any]],
                 timeout: float) -> Transport | None:
        return subgroup_in_memory(self, ranks, name, swap, timeout, self._signal)

    def abort(self, reason: str) -> None:
        self.control.abort(reason)

    def close(self) -> None:
        self._messages.close()
        self.control.close()


def subgroup_in_memory(parent: Transport, ranks: Sequence[int], name: str, swap: Callable[[Any], list[Any]],
                       timeout: float, signal: Signal | None = None, chunk: int | None = None) -> Transport | None:
    """The first of ``ranks`` makes the memory, all of ``parent`` hear where it is, the members map it."""
    creator, member = parent.rank in ranks[:1], parent.rank in ranks
    layout = Layout.default(max(len(ranks), 1), chunk)
    make = Segment.shared if signal is None else Segment.private
    segment, offer = None, {}
    try:
        if creator and len(ranks) > 1:
            segment = make(layout.total)
            offer = segment.handle
    except DistributedError as error:       # the others must hear of it, or they wait for ever
        offer = {"error": str(error)}
    offers = swap(offer)
    if not member:
        return None
    there, rank = tuple(parent.ranks[r] for r in ranks), list(ranks).index(parent.rank)
    if len(ranks) == 1:
        return Single(name, there)
    handle = offers[ranks[0]]
    if "error" in handle:
        raise DistributedError(handle["error"])
    transport = SharedMemory(segment or Segment.attach(handle), layout, rank, there, name, timeout, signal)
    transport.control.meet()
    transport.segment.unlink()
    return transport


def _typed(area: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The beginning of ``area`` with the dtype and shape of ``like``."""
    return area[:like.size * like.dtype.itemsize].view(like.dtype).reshape(like.shape)
