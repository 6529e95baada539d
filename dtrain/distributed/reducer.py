"""The reducer of DistributedDataParallel: gradients live in flat buckets that are reduced while backward runs.

Every parameter's ``.grad`` is a view into its bucket. When backward completes a gradient, a hook counts it; when all of
a bucket are in, the bucket is reduced asynchronously, always in the buckets' order, so that all ranks issue the same
collectives. At the end of the backward pass the reducer waits for what is under way, so ``.grad`` holds the average.
After the first backward the buckets are laid out anew in the order in which rank 0 saw the gradients arrive.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from dtrain.autograd import engine
from dtrain.autograd.hooks import more
from dtrain.autograd.tensor import Tensor
from dtrain.backend import device as devices
from dtrain.backend import namespace
from dtrain.distributed.buckets import Bucket, Item, plan, views
from dtrain.errors import DistributedError

_TWICE = (
    "the gradient of {!r} arrived again after this iteration's gradients were averaged: backward ran twice for one forward through the "
    "wrapper, without a forward between, or the parameter is used outside it. Sum the losses and call backward once, or use no_sync()"
)


class Reducer:
    """Buckets the gradients of ``params`` (name, Parameter) and averages them over ``group``."""

    def __init__(self, params: Sequence[tuple[str, Tensor]], group: Any, cap_bytes: int, find_unused: bool) -> None:
        self.names = [name for name, _ in params]
        self.params = [p for _, p in params]
        self.group, self.cap_bytes, self.find_unused = group, cap_bytes, find_unused
        self.order: list[int] = []  # parameters as their gradients arrived in the first backward
        self.rebuilt = False
        self.expecting = False  # the next backward is to be reduced
        self.reduced = False  # the last forward's backward has been
        self._lay_out(range(len(params) - 1, -1, -1))
        self._handles = [p.register_post_accumulate_grad_hook(self._hook(i)) for i, p in enumerate(self.params)]

    # -- buckets ----------------------------------------------------------------------------------------------------
    def _lay_out(self, order: Sequence[int]) -> None:
        """Make buckets for the parameters in ``order`` and point every gradient slot into them."""
        items = [_item(i, self.params[i]) for i in order]
        shapes = [tuple(p.shape) for p in self.params]
        self.buckets: list[Bucket] = plan(items, self.cap_bytes)
        self.flats: list[Any] = []
        self.slots: dict[int, Any] = {}
        self.bucket_of: dict[int, int] = {}
        for number, bucket in enumerate(self.buckets):
            like = self.params[bucket.indices[0]]
            with devices.scope(like.device):
                flat = namespace.of(like._array).zeros(bucket.numel, like._array.dtype)
            self.flats.append(flat)
            for index, view in zip(bucket.indices, views(flat, bucket, shapes)):
                self.slots[index] = view
                self.bucket_of[index] = number
                self._adopt(index)
        self.pending = [0] * len(self.buckets)

    def _adopt(self, index: int) -> None:
        """Give a parameter its slot, and move a gradient it already has into it."""
        param, slot = self.params[index], self.slots[index]
        more(param)["slot"] = slot
        if param._grad is not None:
            namespace.of(slot).copyto(slot, param._grad._array)
            param._grad = Tensor._wrap(slot)

    def _rebuild(self) -> None:
        """Once, after the first backward: buckets in the order in which rank 0's gradients arrived."""
        self.rebuilt = True
        order = self.group.broadcast_object(self.order if self.group.rank == 0 else None, 0)
        if sorted(order) == list(range(len(self.params))):
            self._lay_out(order)

    # -- one iteration ----------------------------------------------------------------------------------------------
    def prepare(self, outputs: Sequence[Tensor]) -> None:
        """Before a backward that is to be reduced; ``outputs`` are the forward's, to find unused parameters."""
        if not self.rebuilt and self.order:
            self._rebuild()
        self.ready: set[int] = set()
        self.works: list[Any] = []
        self.next_bucket = 0
        self.begun = False
        self.pending = [len(b.indices) for b in self.buckets]
        self.expecting, self.reduced = True, False
        self.unused: list[int] = []
        if self.find_unused:
            used = engine.reachable_leaves(outputs)
            self.unused = [i for i, p in enumerate(self.params) if p not in used]

    def skip(self) -> None:
        """Before a backward that stays local."""
        self.expecting = self.reduced = False

    def _hook(self, index: int) -> Any:
        def arrived(param: Tensor) -> None:
            if self.expecting:
                self._arrived(index)
            elif self.reduced:
                raise DistributedError(_TWICE.format(self.names[index]))

        return arrived

    def _arrived(self, index: int) -> None:
        if not self.begun:
            self.begun = True
            engine.after_backward(self._finish)
            for unused in self.unused:
                self._mark(unused)
        self._mark(index)

    def _mark(self, index: int) -> None:
        if index in self.ready:
            raise DistributedError(_TWICE.format(self.names[index]))
        self.ready.add(index)
        if not self.rebuilt:
            self.order.append(index)
        self._into_slot(index)
        number = self.bucket_of[index]
        self.pending[number] -= 1
        while self.next_bucket < len(self.buckets) and self.pending[self.next_bucket] == 0:
            flat = self.flats[self.next_bucket]
            self.works.append(self.group.all_reduce(flat, "avg", async_op=True))
            self.next_bucket += 1

    def _into_slot(self, index: int) -> None:
        """A gradient that is not (or not only) in its slot goes there; none at all counts as zero."""
        param, slot = self.params[index], self.slots[index]
        grad = param._grad
        if grad is None:
            slot[...] = 0
        elif grad._array is not slot:
            namespace.of(slot).copyto(slot, grad._array)
            param._grad = Tensor._wrap(slot)

    def _finish(self) -> None:
        """At the end of the backward: every bucket must be under way; wait for all."""
        self.expecting, self.reduced = False, True
        missing = [self.names[i] for i in range(len(self.params)) if i not in self.ready]
        if missing:
            self._report_missing(missing)
        for work in self.works:
            work.wait()
        self.works = []
        if self.find_unused:
            self._settle_unused()

    def _report_missing(self, missing: list[str]) -> None:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        message = (
            f"backward gave no gradient to {len(missing)} of {len(self.params)} parameters: {shown}. Each must take part in the loss on "
            "every rank; pass find_unused_parameters=True if that varies, or freeze them with requires_grad_(False) before wrapping"
        )
        self.group.abort(f"on rank {self.group.ranks[self.group.rank]}, {message}")
        raise DistributedError(message)

    def _settle_unused(self) -> None:
        """Parameters unused on some ranks get the average; those unused on all keep the gradient they had."""
        used = np.ones(len(self.params), np.uint8)
        used[self.unused] = 0
        self.group.all_reduce(used, "max")
        for index in self.unused:
            if used[index] and self.params[index]._grad is None:
                self.params[index]._grad = Tensor._wrap(self.slots[index])

    def detach(self) -> None:
        """Take the hooks and slots off the parameters."""
        for handle in self._handles:
            handle.remove()
        for param in self.params:
            more(param).pop("slot", None)


def _item(index: int, param: Tensor) -> Item:
    return Item(index, tuple(param.shape), param.numel(), param.itemsize, (str(param.dtype), str(param.device)))
