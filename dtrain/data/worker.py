"""A loader's worker process: it fetches and collates the batches it is asked for."""

from __future__ import annotations

import importlib
import multiprocessing
import operator
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from dtrain.backend import state
from dtrain.backend.random import manual_seed
from dtrain.backend.threads import set_num_threads
from dtrain.data import segments
from dtrain.data.channel import Closed, WorkerEnd
from dtrain.data.dataset import IterableDataset, fetch


@dataclass(frozen=True)
class WorkerInfo:
    """The worker this process is: number ``id`` of ``num_workers``, seeded with ``seed``, with its copy of ``dataset``."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Which worker this process is; None in the process of the loader itself."""
    return _info


class Fetcher:
    """One pass over ``dataset``: samples by index, or the next ones of an iterable dataset, collated."""

    def __init__(self, dataset: Any, batched: bool, collate_fn: Callable, drop_last: bool) -> None:
        self._dataset, self._batched, self._collate, self._drop_last = dataset, batched, collate_fn, drop_last
        self._stream = iter(dataset) if isinstance(dataset, IterableDataset) else None
        self._ended = False

    def __call__(self, index: Any) -> Any:
        """The batch for ``index``; StopIteration where an iterable dataset has none left."""
        if self._stream is not None:
            return self._collate(self._take(len(index)) if self._batched else next(self._stream))
        return self._collate(fetch(self._dataset, index) if self._batched else self._dataset[index])

    def _take(self, count: int) -> list:
        samples: list = []
        while not self._ended and len(samples) < count:
            try:
                samples.append(next(self._stream))
            except StopIteration:
                self._ended = True
        if not samples or self._drop_last and len(samples) < count:
            raise StopIteration
        return samples


class Raised:
    """An exception on its way from a worker to the loader: its class by name and the worker's traceback as text."""

    def __init__(self, error: BaseException, where: str) -> None:
        self.module, self.name = type(error).__module__, type(error).__qualname__
        self.text = f"Caught {type(error).__name__} {where}.\nOriginal " + "".join(traceback.format_exception(error))

    def reraise(self) -> NoReturn:
        """Raise the same class of exception with the text, or RuntimeError if that cannot be done."""
        kind = self._find()
        try:
            error = kind(self.text)
        except Exception:
            error = RuntimeError(self.text)
        raise error from None

    def _find(self) -> type[Exception]:
        module = "__main__" if self.module == "__mp_main__" else self.module       # how spawn calls the script's module
        try:
            kind = operator.attrgetter(self.name)(sys.modules.get(module) or importlib.import_module(module))
        except (ImportError, AttributeError):
            return RuntimeError
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, StopIteration):
            return RuntimeError                      # StopIteration would end the loop over the loader in silence
        if issubclass(kind, KeyError):               # shows the repr of its text; with this its lines
            return type(kind.__name__, (kind,), {"__str__": lambda self: str(self.args[0]), "__module__": kind.__module__})
        return kind


@dataclass(frozen=True)
class Ended:
    """In place of a batch: this worker's iterable dataset has ended."""


@dataclass(frozen=True)
class Task:
    """Fetch ``index`` as batch ``number`` of pass ``epoch``."""

    epoch: int
    number: int
    index: Any


@dataclass(frozen=True)
class Result:
    """What became of a Task: a batch, Ended or Raised."""

    epoch: int
    number: int
    value: Any


@dataclass(frozen=True)
class Job:
    """What a worker is started with."""

    id: int
    num_workers: int
    base_seed: int
    dataset: Any
    batched: bool
    collate_fn: Callable
    drop_last: bool
    init_fn: Callable | None
    parent_pid: int


def main(job: Job, sock: socket.socket, others: Sequence[socket.socket]) -> None:
    """The life of a worker. ``others`` are sockets of the loader inherited by a fork, which are not ours to keep open."""
    global _info
    for other in others:
        other.close()
    _own_process()
    seed_everything(job.base_seed, job.id)
    _info = WorkerInfo(job.id, job.num_workers, job.base_seed + job.id, job.dataset)
    segments.arena = segments.Arena()
    link = WorkerEnd(sock, segments.arena, _end_of(job.parent_pid))
    where = f"in DataLoader worker process {job.id}"
    try:
        if job.init_fn is not None:
            job.init_fn(job.id)
        failure = None
    except Exception as e:
        failure = Raised(e, where)
    try:
        serve(job, link, failure, where)
    except Closed:
        pass


def serve(job: Job, link: WorkerEnd, failure: Raised | None, where: str) -> None:
    """Answer tasks until the loader goes; a task of a new epoch starts a new pass. ``failure`` is the answer if given."""
    answer, epoch = None, None
    while True:
        link.poll(wait=not link.tasks)
        task = link.tasks.popleft()
        if any(later.epoch > task.epoch for later in link.tasks):
            continue                                         # the loader has started anew: nobody waits for this one
        if task.epoch != epoch:
            answer, epoch = _new_pass(job, failure, where), task.epoch
        _reply(link, task, answer(task.index), where)


def _new_pass(job: Job, failure: Raised | None, where: str) -> Callable[[Any], Any]:
    """The function from an index to its batch, Ended or Raised."""
    try:
        fetcher = Fetcher(job.dataset, job.batched, job.collate_fn, job.drop_last)
    except Exception as e:
        failure = failure or Raised(e, where)

    def answer(index: Any) -> Any:
        if failure is not None:
            return failure
        try:
            return fetcher(index)
        except StopIteration as e:
            return Ended() if isinstance(job.dataset, IterableDataset) else Raised(e, where)
        except Exception as e:
            return Raised(e, where)

    return answer


def _reply(link: WorkerEnd, task: Task, value: Any, where: str) -> None:
    try:
        link.send(Result(task.epoch, task.number, value))
    except Closed:
        raise
    except Exception as e:                                   # the batch cannot be pickled
        link.send(Result(task.epoch, task.number, Raised(e, f"{where}, sending a {type(value).__name__}")))


def seed_everything(base_seed: int, worker: int) -> None:
    """Seed Python's, NumPy's and dtrain's generators of this process, as PyTorch does for this worker."""
    seed = base_seed + worker
    random.seed(seed)
    manual_seed(seed)
    entropy = [worker, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    np.random.seed(np.random.SeedSequence(entropy).generate_state(4))


def _own_process() -> None:
    """Undo what a forked copy of a training process brings along: signal handlers, threads, the process group."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)             # Ctrl-C is the loader's, which then closes the socket
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    state.local.rank.group = None
    set_num_threads(1)


def _end_of(pid: int) -> int:
    """A descriptor that becomes readable when process ``pid``, the loader's, ends."""
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError:                                      # not in this kernel, or ended already
            pass
    parent = multiprocessing.parent_process()
    return parent.sentinel if parent is not None else sys.stdin.fileno()
