"""The plan of gradient buckets: which parameters share a flat array, in which order. Pure values, no communication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Hashable, Sequence

import numpy as np

FIRST_BUCKET_BYTES = 1024 * 1024  # small, so that communication begins early in the backward
ALIGN = 16  # elements: each parameter's view starts on a boundary kernels like


@dataclass(frozen=True)
class Item:
    """One parameter as the plan sees it."""

    index: int
    shape: tuple[int, ...]
    numel: int
    itemsize: int
    kind: Hashable  # parameters of different kinds (dtype, device) never share a bucket


@dataclass(frozen=True)
class Bucket:
    """A flat array: the parameters in it, where each starts (in elements), and its length."""

    indices: tuple[int, ...]
    offsets: tuple[int, ...]
    numel: int
    kind: Hashable


def plan(items: Sequence[Item], cap_bytes: int, first_bytes: int = FIRST_BUCKET_BYTES) -> list[Bucket]:
    """Fill buckets with ``items`` in the given order, each up to ``cap_bytes`` (the first to ``first_bytes``).

    A parameter larger than the limit gets a bucket of its own. Buckets are in the order in which they fill up.
    """
    open_: dict[Hashable, list[Item]] = {}
    sizes: dict[Hashable, int] = {}
    out: list[Bucket] = []
    limit = min(first_bytes, cap_bytes)
    for item in items:
        open_.setdefault(item.kind, []).append(item)
        sizes[item.kind] = sizes.get(item.kind, 0) + item.numel * item.itemsize
        if sizes[item.kind] >= limit:
            out.append(_close(open_.pop(item.kind), item.kind))
            sizes.pop(item.kind)
            limit = cap_bytes
    return out + [_close(rest, kind) for kind, rest in open_.items()]


def _close(items: list[Item], kind: Hashable) -> Bucket:
    offsets, end = [], 0
    for item in items:
        offsets.append(end)
        end += -(-item.numel // ALIGN) * ALIGN
    return Bucket(tuple(i.index for i in items), tuple(offsets), end, kind)


def views(flat: Any, bucket: Bucket, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """The parameters' views of a bucket's flat array, in its order."""
    out = []
    for index, start in zip(bucket.indices, bucket.offsets):
        shape = tuple(shapes[index])
        out.append(flat[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape))
    return out
