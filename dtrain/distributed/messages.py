"""PyTorch's point to point over tensors. Peers are numbers in the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.comm.group import Group
from dtrain.comm.work import Work
from dtrain.distributed.process_group import member, root_of
from dtrain.distributed.tensors import array_of
from dtrain.errors import ArgumentError


def isend(tensor: Tensor, dst: int | None = None, group: Group | None = None, tag: int = 0,
          group_dst: int | None = None) -> Work | None:
    """Start sending ``tensor`` to rank ``dst``; leave it as it is until the work is done."""
    found = member(group, "isend")
    if found is None:
        return None
    return found.isend(array_of(tensor), _peer(found, dst, group_dst, "dst"), tag)


def irecv(tensor: Tensor, src: int | None = None, group: Group | None = None, tag: int = 0,
          group_src: int | None = None) -> Work | None:
    """Start receiving into ``tensor`` from rank ``src``, or from anybody."""
    found = member(group, "irecv")
    if found is None:
        return None
    return found.irecv(array_of(tensor, written=True), root_of(found, src, group_src, "src", None), tag)


def send(tensor: Tensor, dst: int | None = None, group: Group | None = None, tag: int = 0, group_dst: int | None = None) -> None:
    """Send ``tensor`` to rank ``dst``; returns when it may be changed."""
    work = isend(tensor, dst, group, tag, group_dst)
    if work is not None:
        work.wait()


def recv(tensor: Tensor, src: int | None = None, group: Group | None = None, tag: int = 0, group_src: int | None = None) -> int:
    """Receive into ``tensor`` from rank ``src``, or from anybody; returns the rank it came from, -1 outside the group."""
    work = irecv(tensor, src, group, tag, group_src)
    if work is None:
        return -1
    work.wait()
    found = member(group, "recv")
    return found.ranks[work.source]


class P2POp:
    """One send or receive for :func:`batch_isend_irecv`; ``op`` is ``isend`` or ``irecv``."""

    def __init__(self, op: Callable[..., Any], tensor: Tensor, peer: int | None = None, group: Group | None = None, tag: int = 0,
                 group_peer: int | None = None) -> None:
        if op not in (isend, irecv):
            raise ArgumentError("op of a P2POp must be dtrain.distributed.isend or irecv")
        array_of(tensor)
        self.op, self.tensor, self.peer, self.group, self.tag, self.group_peer = op, tensor, peer, group, tag, group_peer


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Work]:
    """Start all of them; returns their works."""
    if not p2p_op_list or not all(isinstance(op, P2POp) for op in p2p_op_list):
        raise ArgumentError("batch_isend_irecv needs a list of at least one P2POp")
    works = [p.op(p.tensor, p.peer, p.group, p.tag, p.group_peer) for p in p2p_op_list]
    return [work for work in works if work is not None]


def _peer(group: Group, rank: int | None, group_rank: int | None, name: str) -> int:
    peer = root_of(group, rank, group_rank, name, None)
    if peer is None:
        raise ArgumentError(f"pass {name}, the rank to send to, or group_{name}")
    return peer
