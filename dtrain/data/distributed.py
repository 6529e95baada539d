"""DistributedSampler: each replica's share of a dataset, the same shuffle on all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from dtrain.backend import random, state
from dtrain.data.sampler import Sampler
from dtrain.errors import ArgumentError, DistributedError


class DistributedSampler(Sampler[int]):
    """Every ``num_replicas``-th index from ``rank`` on, of one shuffle that all replicas share.

    Shares are made equal by repeating the first indices, or with ``drop_last`` by leaving out the last. Call `set_epoch`
    before each epoch, or every epoch has the same order. Without the two numbers the default process group gives them.
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 seed: int = 0, drop_last: bool = False) -> None:
        num_replicas = _group().size if num_replicas is None else num_replicas
        rank = _group().rank if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ArgumentError(f"rank {rank} is outside a world of {num_replicas}: expected 0 to {num_replicas - 1}")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        n = len(dataset)
        if drop_last and n % num_replicas:
            self.num_samples = math.ceil((n - num_replicas) / num_replicas)
        else:
            self.num_samples = math.ceil(n / num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        if self.shuffle:
            generator = random.Generator().manual_seed(self.seed + self.epoch)
            order = random.randperm(n, generator=generator).tolist()
        else:
            order = list(range(n))
        if n and not self.drop_last:
            order = (order * math.ceil(self.total_size / n))[: self.total_size]
        return iter(order[self.rank: self.total_size: self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` part of the shuffle's seed."""
        self.epoch = epoch


def _group() -> Any:
    """The default process group of this rank."""
    group = state.local.rank.group
    if group is None:
        raise DistributedError("there is no default process group; call dtrain.distributed.init_process_group() first, "
                               "or give DistributedSampler num_replicas and rank")
    return group
