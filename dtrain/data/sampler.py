"""Samplers: the order in which a loader asks for samples. The numbers drawn are PyTorch's for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from dtrain.backend import random
from dtrain.errors import ArgumentError

T_co = TypeVar("T_co", covariant=True)
_DRAW = 32                                        # indices drawn at a time with replacement, as in PyTorch


class Sampler(Generic[T_co]):
    """An iterable of indices, or of lists of them; subclasses define ``__iter__`` and usually ``__len__``."""

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} does not define __iter__; a Sampler must")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... over ``data_source``."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """``num_samples`` indices (default: all) of ``data_source`` at random; without replacement whole shuffles follow each other.

    Without ``generator`` each pass draws one seed from the default generator and shuffles with a generator of its own.
    """

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement must be True or False, got {replacement!r}")
        self.data_source, self.replacement, self._num_samples, self.generator = data_source, replacement, num_samples, generator
        n = self.num_samples
        if not isinstance(n, int) or n <= 0:
            hint = "; the dataset is empty" if num_samples is None else ""
            raise ArgumentError(f"num_samples must be an integer of at least 1, got {n}{hint}")

    @property
    def num_samples(self) -> int:
        """Indices in one pass; follows a dataset that grows."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, left = len(self.data_source), self.num_samples
        generator = self.generator
        if generator is None:
            generator = random.Generator().manual_seed(draw_seed())
        while self.replacement and left >= _DRAW:
            left -= _DRAW
            yield from random.randint(0, n, (_DRAW,), generator=generator).tolist()
        if self.replacement:
            yield from random.randint(0, n, (left,), generator=generator).tolist()
            return
        while left >= n:
            left -= n
            yield from random.randperm(n, generator=generator).tolist()
        yield from random.randperm(n, generator=generator).tolist()[:left]     # drawn even if empty, as in PyTorch

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given ``indices`` in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in random.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """``num_samples`` indices drawn in proportion to ``weights``, which need not sum to one."""

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None) -> None:
        check_count("num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise ArgumentError(f"replacement must be True or False, got {replacement!r}")
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1:
            raise ArgumentError(f"weights must be one-dimensional, got shape {self.weights.shape}")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        yield from random.multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of ``batch_size`` consecutive indices of ``sampler``; a shorter last one is dropped or not."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        check_count("batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ArgumentError(f"drop_last must be True or False, got {drop_last!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


def check_count(name: str, value: Any) -> None:
    """ArgumentError unless ``value`` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")


def draw_seed(generator: Any = None) -> int:
    """A fresh seed of [0, 2^63) from ``generator`` or the default one."""
    return int(random.random_integers((), generator=generator))
