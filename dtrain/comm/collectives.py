"""The collectives of a group. Small arrays travel with the header, in one round; larger ones are streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.comm.arrays import Staged, as_bytes, expect
from dtrain.comm.record import Entry, describe
from dtrain.comm.reduction import check, combine
from dtrain.comm.transport import Pick, Push, mismatch
from dtrain.comm.work import Work
from dtrain.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtrain.comm.transport import Transport


class Collectives:
    """Mixed into Group. ``op`` is one of sum, avg, prod, max, min, band, bor, bxor; roots are ranks of the group."""

    if TYPE_CHECKING:
        transport: Transport
        rank: int
        size: int
        timeout: float

        def _collective(self, what: bytes, body: Callable[[Entry], Any], async_op: bool) -> Work: ...
        def _member(self, rank: int, role: str) -> int: ...

    def _begin(self, entry: Entry, payload: np.ndarray | None = None) -> Sequence[np.ndarray]:
        return self.transport.begin(entry, payload, self.timeout)

    def all_reduce(self, array: Any, op: str = "sum", async_op: bool = False) -> Work:
        """Reduce ``array`` over the ranks, in place, to the same bits everywhere."""
        return self._reduce("all_reduce", array, op, None, async_op)

    def reduce(self, array: Any, dst: int, op: str = "sum", async_op: bool = False) -> Work:
        """Reduce ``array`` into that of rank ``dst``; the others keep theirs."""
        return self._reduce("reduce", array, op, self._member(dst, "dst"), async_op)

    def _reduce(self, kind: str, array: Any, op: str, root: int | None, async_op: bool) -> Work:
        data = Staged(array, write=root is None or root == self.rank)
        check(op, data.dtype)
        flat, wants = data.flat, root is None or root == self.rank

        def body(entry: Entry) -> None:
            if self.size == 1:
                return
            small = flat.nbytes <= self.transport.inline_reduce
            parts = self._begin(entry, data.bytes if small else None)
            if not small:
                self.transport.reduce(flat, op, root)
            elif wants and flat.size:
                # its own numbers from the array instead of the slot where that is safe: a third less memory to walk through
                combine([flat if r == self.rank < 2 else part.view(flat.dtype) for r, part in enumerate(parts)], op, flat)
            if wants:
                data.commit()

        detail = op if root is None else f"{op} to {root}"
        return self._collective(describe(kind, detail, data.dtype, data.shape), body, async_op)

    def broadcast(self, array: Any, src: int = 0, async_op: bool = False) -> Work:
        """Copy ``array`` of rank ``src`` into that of all others."""
        self._member(src, "src")
        mine = self.rank == src
        data = Staged(array, write=not mine)

        def body(entry: Entry) -> None:
            small = data.bytes.size <= self.transport.inline
            parts = self._begin(entry, data.bytes if small and mine else None)
            if not small:
                self.transport.broadcast(data.bytes, src)
            elif not mine:
                data.bytes[...] = parts[src]
            if not mine:
                data.commit()

        return self._collective(describe("broadcast", f"from {src}", data.dtype, data.shape), body, async_op)

    def all_gather(self, out: Any, array: Any, async_op: bool = False) -> Work:
        """Copy ``array`` of rank i to ``out[i]`` (size, \\*shape) everywhere."""
        return self._gather("all_gather", "", out, array, None, async_op)

    def gather(self, out: Any | None, array: Any, dst: int = 0, async_op: bool = False) -> Work:
        """Copy ``array`` of rank i to ``out[i]`` (size, \\*shape) on rank ``dst``; the others pass ``out=None``."""
        self._member(dst, "dst")
        return self._gather("gather", f"to {dst}", out if self.rank == dst else None, array, dst, async_op)

    def _gather(self, kind: str, detail: str, out: Any, array: Any, root: int | None, async_op: bool) -> Work:
        data, into = Staged(array, write=False), None
        if root is None or root == self.rank:
            into = Staged(_given(out, kind))
            expect("out", into, (self.size, *data.shape), data.dtype)
        rows = as_bytes(into.flat).reshape(self.size, data.bytes.size) if into is not None else None

        def body(entry: Entry) -> None:
            small = data.bytes.size <= self.transport.inline
            parts = self._begin(entry, data.bytes if small else None)
            if small and rows is not None:
                for row, part in zip(rows, parts):
                    row[...] = part
            elif not small and root is None:
                self.transport.all_gather(rows, data.bytes)
            elif not small:
                picks = [] if rows is None else [Pick(peer, 0, row) for peer, row in enumerate(rows)]
                self.transport.stream(data.bytes, [Push(root, 0, data.bytes.size)], picks, data.bytes.size)
            if into is not None:
                into.commit()

        return self._collective(describe(kind, detail, data.dtype, data.shape), body, async_op)

    def scatter(self, out: Any, array: Any | None, src: int = 0, async_op: bool = False) -> Work:
        """Copy ``array[i]`` (size, \\*shape) of rank ``src`` into ``out`` of rank i; the others pass ``array=None``."""
        into, data = Staged(out), None
        if self.rank == self._member(src, "src"):
            data = Staged(_given(array, "scatter"), write=False)
            expect("array", data, (self.size, *into.shape), into.dtype)
        size = into.bytes.size

        def body(entry: Entry) -> None:
            self._begin(entry)
            send = data.bytes if data is not None else None
            pushes = [Push(r, r * size, (r + 1) * size) for r in range(self.size)] if send is not None else []
            self.transport.stream(send, pushes, [Pick(src, self.rank * size, into.bytes)], self.size * size)
            into.commit()

        return self._collective(describe("scatter", f"from {src}", into.dtype, into.shape), body, async_op)

    def reduce_scatter(self, out: Any, array: Any, op: str = "sum", async_op: bool = False) -> Work:
        """Reduce ``array`` (size, \\*out.shape) over the ranks and leave row i in ``out`` of rank i."""
        into, data = Staged(out), Staged(array, write=False)
        check(op, into.dtype)
        expect("array", data, (self.size, *into.shape), into.dtype)
        rows = data.flat.reshape(self.size, into.flat.size)

        def body(entry: Entry) -> None:
            small = data.bytes.size <= self.transport.inline
            parts = self._begin(entry, data.bytes if small else None)
            if small and rows.size:
                combine([part.view(rows.dtype).reshape(rows.shape)[self.rank] for part in parts], op, into.flat)
            elif not small:
                self.transport.reduce_scatter(rows, op, into.flat)
            into.commit()

        return self._collective(describe("reduce_scatter", op, into.dtype, into.shape), body, async_op)

    def all_to_all(self, out: Any, array: Any, out_splits: Sequence[int] | None = None,
                   in_splits: Sequence[int] | None = None, async_op: bool = False) -> Work:
        """Send the i-th part of ``array`` to rank i; part i of ``out`` comes from rank i.

        Parts are rows along the first axis, as many as the splits say, equal if None.
        """
        into, data = Staged(out), Staged(array, write=False)
        here = np.array([_rows("array", data, in_splits, self.size), _rows("out", into, out_splits, self.size)], np.int64)
        if into.shape[1:] != data.shape[1:] or into.dtype != data.dtype:
            raise ShapeError(f"out {into.dtype} {into.shape} and array {data.dtype} {data.shape} must agree but for rows")
        row = data.dtype.itemsize * int(np.prod(data.shape[1:], dtype=np.int64))

        def body(entry: Entry) -> None:
            parts = self._begin(entry, as_bytes(here.reshape(-1)))
            table = np.array([part.view(np.int64).reshape(2, self.size) for part in parts])
            sends, takes = table[:, 0], table[:, 1]         # [r, i]: rows that r sends to i; that r expects from i
            if (sends != takes.T).any():
                raise self._uneven(entry, sends, takes)
            starts, ends, me = (sends.cumsum(1) - sends) * row, sends.cumsum(1) * row, self.rank
            into_ends = np.cumsum(takes[me]) * row
            picks = [Pick(r, int(starts[r, me]), into.bytes[int(end) - int(takes[me, r]) * row:int(end)])
                     for r, end in enumerate(into_ends)]
            pushes = [Push(r, int(starts[me, r]), int(ends[me, r])) for r in range(self.size)]
            self.transport.stream(data.bytes, pushes, picks, int(ends[:, -1].max()))
            into.commit()

        return self._collective(describe("all_to_all", "", data.dtype, ("rows", *data.shape[1:])), body, async_op)

    def _uneven(self, entry: Entry, sends: np.ndarray, takes: np.ndarray) -> Exception:
        what, site = entry.what.decode(), entry.site.decode()
        return mismatch(self.transport.name, [
            (self.transport.ranks[r], entry.seq, f"{what} sending {sends[r].tolist()}, expecting {takes[r].tolist()} rows", site)
            for r in range(self.size)])

    def barrier(self, async_op: bool = False, timeout: float | None = None) -> Work:
        """Return when all ranks have called it; ``timeout`` seconds instead of the group's."""
        def body(entry: Entry) -> None:
            self.transport.begin(entry, None, self.timeout if timeout is None else timeout)

        return self._collective(b"barrier", body, async_op)


def _given(array: Any, kind: str) -> Any:
    if array is None:
        raise ShapeError(f"{kind} needs the array with one part per rank on this rank, but got None")
    return array


def _rows(name: str, staged: Staged, splits: Sequence[int] | None, size: int) -> list[int]:
    """Rows per rank along the first axis of ``staged``."""
    if not staged.shape:
        raise ShapeError(f"{name} of all_to_all needs at least one axis to split")
    rows = staged.shape[0]
    if splits is None:
        if rows % size:
            raise ShapeError(f"cannot split {rows} rows of {name} evenly over {size} ranks; pass the splits")
        return [rows // size] * size
    if len(splits) != size or sum(splits) != rows or min(splits) < 0:
        raise ShapeError(f"splits {list(splits)} of {name} must be {size} counts that sum to its {rows} rows")
    return list(splits)
