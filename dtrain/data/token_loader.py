"""TokenLoader: language-model batches from a TokenDataset in an order that no world size changes.

The corpus is cut into windows of T+1 tokens that start every T tokens. Epoch e is a permutation of the windows keyed by
(seed, e), computed value by value; step s takes its B values from s*B on, and each rank its contiguous share of them. So
any batch is known from (seed, epoch, step) alone: nothing is replayed on resume and nothing depends on the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dtrain.data.permutation import permute
from dtrain.data.tokens import TokenDataset
from dtrain.errors import ArgumentError, DataError, IndexRangeError

Pair = tuple[Any, Any]
_FIXED = ("seed", "global_batch_size", "sequence_length", "shuffle", "tokens", "sha256")


class TokenLoader:
    """Yields this rank's (x, y), int64 of shape (rows, T), y being x one token later; rows = B / world_size.

    Iterating gives the rest of the current epoch (a last partial batch is dropped) and then moves to the next.
    With ``micro_batches=k`` a list of k pairs of rows/k rows comes instead. ``tensors=False`` gives NumPy arrays.
    Raises ArgumentError if B does not split over ranks and micro-batches, DataError if the corpus has fewer than B windows.
    """

    def __init__(self, dataset: TokenDataset, global_batch_size: int, sequence_length: int, rank: int = 0,
                 world_size: int = 1, seed: int = 0, *, micro_batches: int | None = None, shuffle: bool = True,
                 tensors: bool = True) -> None:
        _check_split(global_batch_size, world_size, micro_batches or 1)
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank {rank} is outside a world of {world_size}: expected 0 to {world_size - 1}")
        if sequence_length < 1:
            raise ArgumentError(f"sequence_length must be at least 1, got {sequence_length}")
        self.dataset, self.global_batch_size, self.sequence_length = dataset, global_batch_size, sequence_length
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.micro_batches, self.shuffle, self.tensors = micro_batches, shuffle, tensors
        self.windows = max(0, (len(dataset) - 1) // sequence_length)
        self.rows = global_batch_size // world_size
        self.epoch = self.step = 0
        if self.windows < global_batch_size:
            raise DataError(f"{len(dataset)} tokens hold {self.windows} windows of {sequence_length}+1 tokens, fewer than the "
                            f"global batch of {global_batch_size}; use more text, a shorter sequence or a smaller batch")

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.windows // self.global_batch_size

    def __iter__(self) -> Iterator[Pair | list[Pair]]:
        while self.step < len(self):
            batch = self.batch(self.epoch, self.step)
            self.step += 1                       # before the yield: a state taken while training on s resumes at s + 1
            yield batch
        self.epoch, self.step = self.epoch + 1, 0

    def forever(self) -> Iterator[Pair | list[Pair]]:
        """Batches of this epoch and all that follow."""
        while True:
            yield from self

    def sample_indices(self, epoch: int, step: int) -> np.ndarray:
        """The window numbers of the whole global batch at (epoch, step), int64 of shape (B,)."""
        if not 0 <= step < len(self):
            raise IndexRangeError(f"step {step} is outside an epoch of {len(self)} steps, [0, {len(self) - 1}]")
        positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        return permute(positions, self.windows, self.seed, epoch) if self.shuffle else positions

    def batch(self, epoch: int, step: int) -> Pair | list[Pair]:
        """This rank's share at (epoch, step); the loader's own position does not move."""
        mine = self.sample_indices(epoch, step)[self.rank * self.rows: (self.rank + 1) * self.rows]
        tokens = self.dataset.windows(mine * self.sequence_length, self.sequence_length + 1)
        if self.micro_batches is None:
            return self._pair(tokens)
        return [self._pair(part) for part in np.split(tokens, self.micro_batches)]

    def _pair(self, tokens: np.ndarray) -> Pair:
        x, y = np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
        if not self.tensors:
            return x, y
        import dtrain

        return dtrain.from_numpy(x), dtrain.from_numpy(y)

    def state_dict(self) -> dict:
        """The position, and what it depends on; the number of ranks is not part of it."""
        return {"epoch": self.epoch, "step": self.step, **self._fixed()}

    def load_state_dict(self, state: dict) -> None:
        """Continue where ``state`` was taken; ArgumentError if seed, batch, length or corpus are not the same."""
        mine = self._fixed()
        wrong = [f"{key} was {state.get(key)!r}, is {mine[key]!r}" for key in _FIXED if state.get(key) != mine[key]]
        if wrong:
            raise ArgumentError(f"this position belongs to another data order: {'; '.join(wrong)}; "
                                "restore those settings, or start the data anew by not loading this state")
        self.epoch, self.step = state["epoch"], state["step"]

    def _fixed(self) -> dict:
        return {"seed": self.seed, "global_batch_size": self.global_batch_size, "sequence_length": self.sequence_length,
                "shuffle": self.shuffle, "tokens": len(self.dataset), "sha256": self.dataset.sha256}


def _check_split(batch: int, ranks: int, micro: int) -> None:
    if min(batch, ranks, micro) < 1:
        raise ArgumentError(f"global_batch_size, world_size and micro_batches must be at least 1, got {batch}, {ranks}, {micro}")
    if batch < ranks:
        raise ArgumentError(f"{ranks} ranks are more than the global batch of {batch} rows; "
                            f"use at most {batch} ranks or a global batch of at least {ranks}")
    if batch % (ranks * micro):
        shares = f"{ranks} ranks" + (f" x {micro} micro-batches" if micro > 1 else "")
        below, above = batch - batch % (ranks * micro), batch + -batch % (ranks * micro)
        near = " or ".join(str(n) for n in (below, above) if n)
        raise ArgumentError(f"a global batch of {batch} rows does not split evenly over {shares}; use {near} rows")
