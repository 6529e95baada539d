"""What ``iter(loader)`` gives: batches made here, or by worker processes and handed out in order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dtrain.data.pool import Pool, choose_context
from dtrain.data.sampler import draw_seed
from dtrain.data.worker import Ended, Fetcher, Job, Raised, Result, Task
from dtrain.errors import DataError


@dataclass
class Progress:
    """Where a pass is: the generators' states it began with, batches handed out, and whether it has ended."""

    start: list = field(default_factory=list)
    batches: int = 0
    ended: bool = False


class LoaderIterator:
    """One pass; subclasses define ``_next_batch``."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._indices: Iterator[Any] = iter(loader._index_sampler)
        self.base_seed = draw_seed(loader.generator)
        self.progress = Progress()

    def __iter__(self) -> "LoaderIterator":
        return self

    def __next__(self) -> Any:
        try:
            batch = self._next_batch()
        except StopIteration:
            self.progress.ended = True
            raise
        self.progress.batches += 1
        self._loader._check_length(self.progress.batches)
        return batch

    def __len__(self) -> int:
        return len(self._loader._index_sampler)

    def skip(self, batches: int) -> None:
        """Leave out the first ``batches``: by index without fetching them, from an iterable dataset by fetching."""
        if self._loader._is_iterable:
            for _ in range(batches):
                self._next_batch()
        else:
            next(itertools.islice(self._indices, batches, batches), None)
        self.progress.batches = batches

    def _next_batch(self) -> Any:
        raise AssertionError("a subclass makes the batches")


class SerialIterator(LoaderIterator):
    """Makes the batches in this process."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._fetch = Fetcher(loader.dataset, loader._batched, loader.collate_fn, loader.drop_last)

    def _next_batch(self) -> Any:
        return self._fetch(next(self._indices))


class ParallelIterator(LoaderIterator):
    """Hands indices to worker processes in turn, ``prefetch_factor`` batches ahead each, and takes batches back in order."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._epoch = 0
        self._pool = Pool(loader.num_workers, self._job, choose_context(loader.multiprocessing_context))
        self._begin()

    def _job(self, number: int) -> Job:
        loader = self._loader
        return Job(number, loader.num_workers, self.base_seed, loader.dataset, loader._batched, loader.collate_fn, loader.drop_last,
                   loader.worker_init_fn, os.getpid())

    def restart(self) -> None:
        """Begin another pass with the same workers; batches still on their way are forgotten."""
        if self._pool.closed:
            self._pool = Pool(self._loader.num_workers, self._job, choose_context(self._loader.multiprocessing_context))
        self._indices, self.progress = iter(self._loader._index_sampler), Progress()
        self._begin()

    def _begin(self) -> None:
        self._epoch += 1
        self._sent = self._taken = 0
        self._active = list(range(self._loader.num_workers))     # workers whose dataset has not ended
        self._turn = 0
        self._worker_of: dict[int, int] = {}
        self._arrived: dict[int, Any] = {}
        self._exhausted = False

    def _fill(self) -> None:
        """Send indices until enough batches are on their way."""
        ahead = self._loader.prefetch_factor * self._loader.num_workers
        while self._active and not self._exhausted and self._sent - self._taken < ahead:
            try:
                index = next(self._indices)
            except StopIteration:
                self._exhausted = True
                return
            worker = self._active[self._turn % len(self._active)]
            self._turn = (self._turn + 1) % len(self._active)
            self._pool.send(worker, Task(self._epoch, self._sent, index))
            self._worker_of[self._sent] = worker
            self._sent += 1

    def _next_batch(self) -> Any:
        if self.progress.ended:
            raise StopIteration
        if self._pool.closed:
            raise DataError("the workers of this DataLoader iterator have ended; make another with iter(loader)")
        while True:
            self._fill()
            if not self._worker_of:
                self._finish()
                raise StopIteration
            number, value = self._take()
            worker = self._worker_of.pop(number)
            self._taken += 1
            if isinstance(value, Ended):
                self._retire(worker)
                continue
            self._fill()
            if isinstance(value, Raised):
                value.reraise()
            return value

    def _take(self) -> tuple[int, Any]:
        """The next batch in order, or in order of arrival if the loader says so, and its number."""
        while True:
            number = min(self._worker_of) if self._loader.in_order else next(iter(self._arrived), None)
            if number in self._arrived:
                return number, self._arrived.pop(number)
            for result in self._pool.receive(self._loader.timeout or None):
                self._store(result)

    def _store(self, result: Result) -> None:
        if result.epoch == self._epoch:
            self._arrived[result.number] = result.value

    def _retire(self, worker: int) -> None:
        if worker in self._active:
            place = self._active.index(worker)
            self._active.remove(worker)
            if place < self._turn:
                self._turn -= 1

    def _finish(self) -> None:
        if not self._loader.persistent_workers:
            self._pool.close()
