"""Datasets and what combines them, as in torch.utils.data.

A dataset may define `__getitems__(indices) -> list` besides `__getitem__`; a loader then fetches a batch in one call.
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from dtrain.errors import ArgumentError, IndexRangeError

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A map from index to sample; subclasses define ``__getitem__`` and usually ``__len__``."""

    def __getitem__(self, index: Any) -> T_co:
        raise TypeError(f"{type(self).__name__} does not define __getitem__; a map-style Dataset must")

    def __add__(self, other: "Dataset") -> "ConcatDataset":
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """A stream of samples; subclasses define ``__iter__``.

    With worker processes every worker iterates its own copy: use `get_worker_info` to share the work out.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} does not define __iter__; an IterableDataset must")

    def __add__(self, other: Dataset) -> "ChainDataset":
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple]):
    """Sample i is the tuple of the i-th rows of ``tensors`` (Tensors or arrays with equal first dimensions)."""

    def __init__(self, *tensors: Any) -> None:
        rows = [len(t) for t in tensors]
        if len(set(rows)) != 1:
            raise ArgumentError(f"TensorDataset needs tensors with the same number of rows, got {rows}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class StackDataset(Dataset):
    """Sample i is the tuple (or, from keyword arguments, the dict) of the samples i of several datasets."""

    def __init__(self, *args: Dataset, **kwargs: Dataset) -> None:
        if bool(args) == bool(kwargs):
            raise ArgumentError("StackDataset takes datasets either all as arguments or all as keywords, and at least one")
        self.datasets: Any = args or kwargs
        sizes = [len(d) for d in self._parts()]
        if len(set(sizes)) != 1:
            raise ArgumentError(f"StackDataset needs datasets of the same length, got {sizes}")

    def _parts(self) -> list:
        return list(self.datasets.values()) if isinstance(self.datasets, dict) else list(self.datasets)

    def _join(self, samples: Sequence) -> Any:
        return dict(zip(self.datasets, samples)) if isinstance(self.datasets, dict) else tuple(samples)

    def __getitem__(self, index: Any) -> Any:
        return self._join([d[index] for d in self._parts()])

    def __getitems__(self, indices: list) -> list:
        return [self._join(samples) for samples in zip(*(fetch(d, indices) for d in self._parts()))]

    def __len__(self) -> int:
        return len(self._parts()[0])


class ConcatDataset(Dataset[T_co]):
    """Datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset needs at least one dataset, got an empty list")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise ArgumentError("ConcatDataset takes map-style datasets only; chain iterable ones with ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        n = len(self)
        if not -n <= index < n:
            raise IndexRangeError(f"index {index} is outside a ConcatDataset of {n} samples, [{-n}, {n - 1}]")
        index %= n
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset):
    """Iterable datasets one after the other."""

    def __init__(self, datasets: Iterable[IterableDataset]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise ArgumentError(f"ChainDataset takes iterable datasets only, got a {type(d).__name__}")
            yield from d

    def __len__(self) -> int:
        return sum(len(d) for d in self.datasets)


class Subset(Dataset[T_co]):
    """The samples ``indices`` of ``dataset``."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list) -> list:
        return fetch(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def fetch(dataset: Any, indices: Sequence) -> Sequence:
    """The samples at ``indices``, in one call where the dataset offers that."""
    many = getattr(dataset, "__getitems__", None)
    return [dataset[i] for i in indices] if many is None else many(indices)


def random_split(dataset: Dataset, lengths: Sequence[int | float], generator: Any = None) -> list[Subset]:
    """Split ``dataset`` at random into Subsets of ``lengths``: counts, or fractions that sum to 1.

    Without ``generator`` the default one draws the permutation. Raises ArgumentError if the counts do not add up.
    """
    n = len(dataset)
    counts = _fractions_to_counts(lengths, n) if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 else list(lengths)
    if sum(counts) != n:
        raise ArgumentError(f"the lengths {counts} sum to {sum(counts)}, but the dataset has {n} samples")
    from dtrain.backend import random

    order = random.randperm(n, generator=generator).tolist()
    return [Subset(dataset, order[end - count: end]) for end, count in zip(itertools.accumulate(counts), counts)]


def _fractions_to_counts(fractions: Sequence[float], n: int) -> list[int]:
    """Each fraction of ``n`` rounded down; what is left over goes to the first splits, one each."""
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ArgumentError(f"fraction {fraction} at position {i} is not between 0 and 1")
    counts = [math.floor(n * fraction) for fraction in fractions]
    for i in range(n - sum(counts)):
        counts[i % len(counts)] += 1
    for i, count in enumerate(counts):
        if count == 0:
            warnings.warn(f"split {i} is empty: {fractions[i]} of {n} samples is less than one", stacklevel=3)
    return counts
