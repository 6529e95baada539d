"""DataLoader: batches of a dataset, in this process or by workers, in PyTorch's order for the same seed."""

from __future__ import annotations

import math
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from dtrain.backend import random
from dtrain.data.collate import default_collate, default_convert
from dtrain.data.dataset import Dataset, IterableDataset
from dtrain.data.iterators import LoaderIterator, ParallelIterator, Progress, SerialIterator
from dtrain.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from dtrain.env import usable_cores
from dtrain.errors import ArgumentError
from dtrain.logs import warn_once

T_co = TypeVar("T_co", covariant=True)
_FIXED = frozenset("batch_size batch_sampler sampler drop_last dataset persistent_workers".split())


class DataLoader(Generic[T_co]):
    """An iterable over batches of ``dataset``; arguments and defaults are torch.utils.data.DataLoader's.

    Worker processes are forked on Linux (or started as ``multiprocessing_context`` says), each seeded with a number drawn at
    the start of a pass; arrays come back through shared memory. A worker's exception is raised here with its traceback.
    `state_dict` and `load_state_dict` resume in the middle of a pass without fetching what was seen.
    """

    def __init__(self, dataset: Dataset[T_co], batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Sampler | Iterable | None = None, batch_sampler: Sampler[list] | Iterable[list] | None = None,
                 num_workers: int = 0, collate_fn: Callable[[list], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Any = None, *, prefetch_factor: int | None = None,
                 persistent_workers: bool = False, pin_memory_device: str = "", in_order: bool = True) -> None:
        self._is_iterable = isinstance(dataset, IterableDataset)
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        _check_sampling(self._is_iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if pin_memory:
            warn_once("pin_memory", "pin_memory=True has no effect: dtrain copies batches to a GPU from ordinary memory")
        self.dataset, self.num_workers, self.timeout, self.drop_last = dataset, num_workers, timeout, drop_last
        self.pin_memory, self.pin_memory_device, self.in_order = pin_memory, pin_memory_device, in_order
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.worker_init_fn, self.multiprocessing_context, self.generator = worker_init_fn, multiprocessing_context, generator
        self.persistent_workers = persistent_workers
        if sampler is None:
            sampler = self._default_sampler(bool(shuffle))
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.sampler, self.batch_sampler = batch_size, sampler, batch_sampler
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self._iterator: ParallelIterator | None = None           # kept if its workers are
        self._progress = Progress()
        self._resume: dict | None = None
        self._length_said: int | None = None
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and getattr(self, "_ready", False):
            raise ArgumentError(f"{name} of a DataLoader cannot be changed once it is made; make another DataLoader")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[Any]:
        resume, self._resume = self._resume, None
        return self._fresh() if resume is None else self._resumed(resume)

    def __len__(self) -> int:
        """Batches in a pass; for an iterable dataset its length divided by the batch size, whatever the workers do."""
        if not self._is_iterable:
            return len(self._index_sampler)
        n = self._length_said = len(self.dataset)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    def state_dict(self) -> dict:
        """The place in the current pass, for `load_state_dict` of a loader made the same way.

        Exact for samplers that depend only on their generators. Workers' own random numbers (augmentation) start anew.
        """
        return {"batches": self._progress.batches, "ended": self._progress.ended, "start": self._progress.start,
                "generators": _states(self._own_generators()), "epoch": getattr(self._epoch_sampler(), "epoch", None)}

    def load_state_dict(self, state: dict) -> None:
        """Make the next pass go on where ``state`` was taken; a pass that had ended is followed by a new one."""
        missing = {"batches", "ended", "start", "generators", "epoch"} - set(state)
        if missing:
            raise ArgumentError(f"this is not the state of a DataLoader: it lacks {', '.join(sorted(missing))}")
        if len(state["generators"]) != len(self._own_generators()):
            raise ArgumentError(f"this state is of a loader with {len(state['generators'])} generators, this one has "
                                f"{len(self._own_generators())}; make the loader as the one that was saved")
        for generator, place in zip(self._own_generators(), state["generators"]):
            generator.set_state(place)
        sampler = self._epoch_sampler()
        if sampler is not None and state["epoch"] is not None:
            sampler.set_epoch(state["epoch"])
        self._resume = None if state["ended"] or not state["start"] else state

    @property
    def _batched(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._batched else self.sampler

    def _default_sampler(self, shuffle: bool) -> Any:
        if self._is_iterable:
            return _Forever()
        return RandomSampler(self.dataset, generator=self.generator) if shuffle else SequentialSampler(self.dataset)

    def _samplers(self) -> list:
        """The samplers whose generators and epochs are part of the state."""
        return [self.sampler, self.batch_sampler, getattr(self.batch_sampler, "sampler", None)]

    def _own_generators(self) -> list:
        """The generators given by the user to the loader or its samplers, each once."""
        found = [self.generator, *(getattr(s, "generator", None) for s in self._samplers())]
        return list({id(g): g for g in found if isinstance(g, random.Generator)}.values())

    def _epoch_sampler(self) -> Any:
        return next((s for s in self._samplers() if hasattr(s, "set_epoch")), None)

    def _fresh(self) -> LoaderIterator:
        start = _states([random.default_generator(), *self._own_generators()])
        if self._iterator is not None:
            iterator: LoaderIterator = self._iterator
            self._iterator.restart()
        else:
            iterator = ParallelIterator(self) if self.num_workers else SerialIterator(self)
            if self.persistent_workers:
                self._iterator = iterator
        iterator.progress.start = start
        self._progress = iterator.progress
        return iterator

    def _resumed(self, state: dict) -> LoaderIterator:
        """Draw what the pass drew at its start from the states it had then; the default generator is left as it is now."""
        default = random.default_generator()
        now = default.get_state()
        for generator, place in zip([default, *self._own_generators()], state["start"]):
            generator.set_state(place)
        try:
            iterator = self._fresh()
            iterator.skip(state["batches"])
        finally:
            default.set_state(now)
        return iterator

    def _check_length(self, batches: int) -> None:
        said, size = self._length_said, self.batch_size or 1
        if self._is_iterable and said is not None and (batches - 1) * size >= said:
            warn_once(f"loader length {id(self)}", f"the iterable dataset said it has {said} samples but gives more; with several workers "
                      "each must take its own share, see dtrain.data.get_worker_info")


class _Forever(Sampler[None]):
    """The sampler of iterable datasets, which ask for no index."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


def _states(generators: list) -> list:
    return [g.get_state() for g in generators]


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool, context: Any) -> None:
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ArgumentError(f"num_workers must be an integer of at least 0, got {num_workers!r}; 0 loads in this process")
    if timeout < 0:
        raise ArgumentError(f"timeout must be at least 0 seconds, got {timeout}")
    if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
        raise ArgumentError(f"prefetch_factor={prefetch_factor} with num_workers={num_workers}: it must be at least 1 and needs workers")
    if persistent and num_workers == 0:
        raise ArgumentError("persistent_workers=True needs num_workers of at least 1")
    if context is not None and num_workers == 0:
        raise ArgumentError("multiprocessing_context needs num_workers of at least 1")
    if isinstance(context, str) and context not in multiprocessing.get_all_start_methods():
        raise ArgumentError(f"multiprocessing_context={context!r} is not one of {', '.join(multiprocessing.get_all_start_methods())}")
    if not isinstance(context, (str, type(None), multiprocessing.context.BaseContext)):
        raise TypeError(f"multiprocessing_context must be a start method or a context, got a {type(context).__name__}")
    cores = usable_cores()
    if num_workers > cores:
        warnings.warn(f"{num_workers} loader workers share {cores} cores; more than {cores} make loading slower, not faster", stacklevel=3)


def _check_sampling(iterable: bool, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool) -> None:
    if iterable:
        for name, given in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if given is not None:
                raise ArgumentError(f"an iterable dataset decides its own order; {name}={given!r} cannot be given with it")
    if sampler is not None and shuffle:
        raise ArgumentError("give either a sampler or shuffle=True: the sampler alone decides the order")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ArgumentError("batch_sampler decides batches and order; batch_size, shuffle, sampler and drop_last cannot be given with it")
    if batch_size is None and batch_sampler is None and drop_last:
        raise ArgumentError("batch_size=None means no batches, so there is no last one to drop; leave drop_last out")
