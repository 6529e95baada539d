"""The ``local`` backend: processes of one node, started by anyone, without MPI. They meet at a store and share memory."""

from __future__ import annotations

import json

from dtrain.comm.group import DEFAULT_TIMEOUT, Group
from dtrain.comm.rendezvous import meet_at_address, meet_at_file, node_id, same_node
from dtrain.comm.shm.exchange import SharedMemory
from dtrain.comm.shm.segment import Layout, Segment
from dtrain.comm.single import Single
from dtrain.comm.store import Store
from dtrain.errors import DistributedError


def local_group(rank: int, size: int, *, address: tuple[str, int] | None = None, file: str | None = None,
                store: Store | None = None, timeout: float = DEFAULT_TIMEOUT, chunk: int | None = None,
                backend: str = "local") -> Group:
    """The world of ``size`` processes of this node; they meet at an address, a file or in a store they share.

    Raises DistributedError naming the ranks that did not come within ``timeout`` seconds.
    """
    if size == 1:
        return Group(Single(), backend, timeout)
    ours = store is None
    if store is None and file is not None:
        store = meet_at_file(file, rank, timeout)
    elif store is None:
        assert address is not None
        store = meet_at_address(*address, rank, timeout)
    try:
        transport = _share(store, rank, size, timeout, chunk)
    finally:
        if ours:
            store.close()
    return Group(transport, backend, timeout)


def _share(store: Store, rank: int, size: int, timeout: float, chunk: int | None) -> SharedMemory:
    """Rank 0 makes the memory and says where; the others say that they are there and map it."""
    layout = Layout.default(size, chunk)
    if rank == 0:
        segment = _offer(store, layout)
    else:
        note = json.loads(store.get("dtrain/segment", timeout))
        if "error" in note:
            raise DistributedError(note["error"])
        same_node(note["node"], "the store")
        if note["size"] != size:
            raise DistributedError(f"rank 0 expects {note['size']} ranks, but rank {rank} was told there are {size}")
        if store.add(f"dtrain/rank/{rank}", 1) > 1:
            raise DistributedError(f"two processes say that they are rank {rank}; check RANK of each")
        segment = Segment.attach(note["handle"])
    transport = SharedMemory(segment, layout, rank, tuple(range(size)), "world", timeout)
    transport.control.meet()
    segment.unlink()
    return transport


def _offer(store: Store, layout: Layout) -> Segment:
    try:
        segment = Segment.shared(layout.total)
    except DistributedError as error:
        store.set("dtrain/segment", json.dumps({"error": str(error)}))
        raise
    note = {"handle": segment.handle, "size": layout.size, "node": node_id()}
    store.set("dtrain/segment", json.dumps(note))
    return segment
