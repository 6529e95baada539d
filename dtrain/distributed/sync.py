"""Making ranks equal: the check that models match, and broadcasts of many arrays in few large messages."""

from __future__ import annotations

from typing import Any, Sequence

from dtrain.backend import namespace
from dtrain.errors import DistributedError

BROADCAST_BYTES = 250 * 1024 * 1024


def verify_same(group: Any, named: Sequence[tuple[str, Any]], what: str) -> None:
    """Raise DistributedError on every rank, naming the first difference, unless all ranks list the same names, shapes and dtypes."""
    mine = [(name, tuple(int(n) for n in t.shape), str(t.dtype)) for name, t in named]
    everyone = group.all_gather_object(mine)
    for rank, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            raise DistributedError(f"{what} differ between ranks 0 and {rank} of the group: {_difference(everyone[0], theirs)}")


def _difference(a: list, b: list) -> str:
    for x, y in zip(a, b):
        if x != y:
            return f"rank 0 has {_say(x)}, the other {_say(y)}"
    longer, which = (a, "only rank 0 has") if len(a) > len(b) else (b, "only the other has")
    return f"{which} {_say(longer[min(len(a), len(b))])}"


def _say(entry: tuple) -> str:
    name, shape, dtype = entry
    return f"{name!r} {shape} {dtype}"


def broadcast_arrays(group: Any, arrays: Sequence[Any], src: int = 0) -> None:
    """Copy ``arrays`` of rank ``src`` into the others' in place, coalesced by dtype and device into messages of at most 250 MB."""
    if group.size == 1:
        return
    batches: dict[Any, list] = {}
    for array in arrays:
        batches.setdefault((type(array), array.dtype, str(getattr(array, "device", ""))), []).append(array)
    for batch in batches.values():
        for part in _chunks(batch):
            _broadcast_flat(group, part, src)


def _chunks(batch: list) -> list[list]:
    out: list[list] = [[]]
    size = 0
    for array in batch:
        if out[-1] and size + array.nbytes > BROADCAST_BYTES:
            out.append([])
            size = 0
        out[-1].append(array)
        size += array.nbytes
    return out


def _broadcast_flat(group: Any, arrays: list, src: int) -> None:
    if len(arrays) == 1:
        group.broadcast(arrays[0], src)
        return
    xp = namespace.of(arrays[0])
    flat = xp.concatenate([a.reshape(-1) for a in arrays])
    group.broadcast(flat, src)
    start = 0
    for array in arrays:
        xp.copyto(array, flat[start : start + array.size].reshape(array.shape))
        start += array.size
