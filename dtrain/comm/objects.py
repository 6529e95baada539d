"""Python objects between the ranks of one job, pickled. Ranks of a job trust each other; nothing else is unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.comm.record import Entry
from dtrain.comm.transport import Pick, Push
from dtrain.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtrain.comm.transport import Transport
    from dtrain.comm.work import Work


class Objects:
    """Mixed into Group. Objects of any size: what does not fit beside the header is streamed in chunks."""

    if TYPE_CHECKING:
        transport: Transport
        rank: int
        size: int
        timeout: float

        def _collective(self, what: bytes, body: Callable[[Entry], Any], async_op: bool) -> Work: ...
        def _member(self, rank: int, role: str) -> int: ...

    def all_gather_object(self, obj: Any) -> list[Any]:
        """The objects of all ranks, in rank order."""
        return self._swap(b"all_gather_object", pickle.dumps(obj), range(self.size), range(self.size))

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """The objects of all ranks on rank ``dst``, None elsewhere."""
        what = f"gather_object to {self._member(dst, 'dst')}".encode()
        found = self._swap(what, pickle.dumps(obj), range(self.size), (dst,))
        return found if self.rank == dst else None

    def broadcast_object(self, obj: Any = None, src: int = 0) -> Any:
        """The object of rank ``src``, everywhere."""
        mine = self.rank == self._member(src, "src")
        found = self._swap(f"broadcast_object from {src}".encode(), pickle.dumps(obj) if mine else b"", (src,), range(self.size))
        return obj if mine else found[0]

    def scatter_object(self, objs: Sequence[Any] | None = None, src: int = 0) -> Any:
        """The i-th object of rank ``src``, on rank i."""
        data, lengths = b"", None
        if self.rank == self._member(src, "src"):
            if objs is None or len(objs) != self.size:
                raise ArgumentError(f"scatter_object needs {self.size} objects on rank {src}, one per rank")
            each = [pickle.dumps(obj) for obj in objs]
            data, lengths = b"".join(each), [len(e) for e in each]
        return self._swap(f"scatter_object from {src}".encode(), data, (src,), range(self.size), lengths or [])[0]

    def _swap(self, what: bytes, data: bytes, sources: Sequence[int], readers: Sequence[int],
              lengths: list[int] | None = None) -> list[Any]:
        """Unpickle the bytes of ``sources`` on ``readers``; with ``lengths`` (of a scatter) only this rank's part of them."""
        sent = np.frombuffer(data, np.uint8)
        found: list[Any] = []

        def body(entry: Entry) -> None:
            table = [len(data), *(lengths or ())]
            head = np.array([len(table), *table], np.int64).view(np.uint8)
            room = self.transport.inline - head.size
            parts = self.transport.begin(entry, np.concatenate([head, sent[:max(room, 0)]]), self.timeout)
            tables = [_table(part) for part in parts]
            longest = max(table[0] for table in tables)
            reads = sources if self.rank in readers else ()
            if all(part.size == t.nbytes + 8 + t[0] for part, t in zip(parts, tables)):
                whole = {r: np.array(parts[r][8 + tables[r].nbytes:]) for r in reads}
            else:
                whole = {r: np.empty(int(tables[r][0]), np.uint8) for r in reads}
                pushes = [Push(r, 0, sent.size) for r in readers] if self.rank in sources else []
                self.transport.stream(sent, pushes, [Pick(r, 0, dest) for r, dest in whole.items()], int(longest))
            for r in reads:
                found.append(pickle.loads(self._part(whole[r], tables[r], lengths is not None)))

        self._collective(what, body, False)
        return found

    def _part(self, whole: np.ndarray, table: np.ndarray, scattered: bool) -> memoryview:
        if not scattered:
            return memoryview(whole)
        end = int(table[1:self.rank + 2].sum())
        return memoryview(whole[end - int(table[self.rank + 1]):end])


def _table(part: np.ndarray) -> np.ndarray:
    """The lengths at the head of a payload: all bytes, then each rank's."""
    count = int(part[:8].view(np.int64)[0])
    return part[8:8 + 8 * count].view(np.int64).copy()      # the payload lives until the next round only
