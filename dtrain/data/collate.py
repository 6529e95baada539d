"""default_collate and default_convert: samples to batches, arrays and numbers to Tensors.

Arrays are stacked as NumPy arrays, in a worker process straight into shared memory, and wrapped at the end.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from dtrain.data import segments
from dtrain.errors import ShapeError

_NOT_NUMERIC = "SUOaV"                             # dtype kinds without numbers (bfloat16 has kind V, see _is_numeric)
Handlers = dict[Any, Callable[..., Any]]


def default_collate(batch: Sequence) -> Any:
    """A list of samples as one batch, with a new first dimension.

    Tensors, arrays and numbers become a Tensor (float: float64, int: int64), strings and bytes stay a list; mappings,
    namedtuples and sequences are collated inside (a tuple gives a list). Raises ShapeError for samples of unequal shape,
    TypeError for a type it does not know.
    """
    return collate(batch, collate_fn_map=default_handlers())


def collate(batch: Sequence, *, collate_fn_map: Handlers | None = None) -> Any:
    """As `default_collate`, with ``collate_fn_map`` (type or types -> ``fn(batch, *, collate_fn_map)``) saying how leaves are made."""
    first = batch[0]
    kind = type(first)
    for types, handler in (collate_fn_map or {}).items():
        if kind is types or isinstance(first, types):
            return handler(batch, collate_fn_map=collate_fn_map)
    inner = functools.partial(collate, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        return _like_mapping(first, {key: inner([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        sizes = [len(sample) for sample in batch]
        if len(set(sizes)) > 1:
            raise ShapeError(f"samples of a batch are sequences of different lengths: {_few(sizes)}; pass a collate_fn that pads them")
        parts = [inner(part) for part in zip(*batch)]
        if hasattr(first, "_fields"):
            return kind(*parts)
        return parts if isinstance(first, tuple) else _like_sequence(first, parts)
    raise TypeError(f"default_collate takes tensors, arrays, numbers, strings, bytes, and mappings and sequences of them; got a "
                    f"{kind.__module__}.{kind.__qualname__}; pass a collate_fn for it")


def default_convert(data: Any) -> Any:
    """One sample with its arrays and NumPy numbers as Tensors; all else stays (but a tuple gives a list)."""
    kind = type(data)
    if isinstance(data, np.ndarray) and not _is_numeric(data.dtype) or isinstance(data, (str, bytes)):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return _tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, Sequence):
        parts = [default_convert(value) for value in data]
        if hasattr(data, "_fields"):
            return kind(*parts)
        return parts if isinstance(data, tuple) else _like_sequence(data, parts)
    return data


def _like_mapping(sample: Mapping, values: dict) -> Any:
    """``values`` in the type of ``sample``, which may carry more than its items; a dict where that is impossible."""
    try:
        if not isinstance(sample, MutableMapping):
            return type(sample)(values)
        made = copy.copy(sample)
        made.update(values)
        return made
    except TypeError:
        return values


def _like_sequence(sample: Sequence, parts: list) -> Any:
    try:
        if not isinstance(sample, MutableSequence):
            return type(sample)(parts)
        made = copy.copy(sample)
        made[:] = parts
        return made
    except TypeError:
        return parts


def stack_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays, of one shape and dtype, along a new first axis; in a worker process in shared memory."""
    first = arrays[0]
    for i, a in enumerate(arrays):
        if a.shape != first.shape:
            raise ShapeError(f"samples of a batch have different shapes: sample 0 has {first.shape}, sample {i} has {a.shape}; "
                             "bring them to one shape or pass a collate_fn that pads")
    if any(a.dtype != first.dtype for a in arrays):
        return np.stack(arrays)
    return np.stack(arrays, out=segments.empty((len(arrays), *first.shape), first.dtype))


def _tensor(array: np.ndarray) -> Any:
    import dtrain

    return dtrain.from_numpy(array)


def _collate_tensors(batch: Sequence, *, collate_fn_map: Any = None) -> Any:
    import dtrain

    arrays = [getattr(t, "_array", None) for t in batch]
    plain = all(type(a) is np.ndarray and not t.requires_grad for a, t in zip(arrays, batch))
    if plain and len({a.dtype for a in arrays}) == 1:
        return _tensor(stack_arrays(arrays))
    return dtrain.stack(list(batch))


def _collate_arrays(batch: Sequence, *, collate_fn_map: Any = None) -> Any:
    if not _is_numeric(batch[0].dtype):
        raise TypeError(f"default_collate cannot make a Tensor of arrays of {batch[0].dtype}; pass a collate_fn for them")
    return _tensor(stack_arrays(batch))


def _collate_numbers(batch: Sequence, *, collate_fn_map: Any = None) -> Any:
    return _tensor(np.array(batch))


def _collate_floats(batch: Sequence, *, collate_fn_map: Any = None) -> Any:
    return _tensor(np.array(batch, np.float64))


def _keep(batch: Sequence, *, collate_fn_map: Any = None) -> Any:
    return batch


@functools.cache
def default_handlers() -> Handlers:
    """The handlers of `default_collate`; entries added to this dict take effect everywhere."""
    from dtrain.autograd.tensor import Tensor

    return {Tensor: _collate_tensors, np.ndarray: _collate_arrays, (np.bool_, np.number): _collate_numbers,
            float: _collate_floats, int: _collate_numbers, str: _keep, bytes: _keep}


def load_tensors() -> None:
    """Import what collating needs now, so that processes forked from this one need not each do so."""
    import dtrain

    default_handlers()
    dtrain.from_numpy(np.zeros(1))


def _is_numeric(dtype: np.dtype) -> bool:
    return dtype.kind not in _NOT_NUMERIC or dtype.kind == "V" and dtype.names is None and dtype.name != f"void{8 * dtype.itemsize}"


def _few(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes[:8])) + (", ..." if len(sizes) > 8 else "")


def __getattr__(name: str) -> Any:
    if name == "default_collate_fn_map":                   # PyTorch's name; made on use because it names Tensor
        return default_handlers()
    raise AttributeError(name)
