"""Indexing as CuPy does it: an index array out of range wraps around silently, so our own range checks must be there.

Whole numbers and slices are checked as in NumPy; masks become positions; NumPy arrays as indices are refused although
CuPy would copy them to the device, because that hides a transfer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ADDABLE = {"add": "ilqILQefd", "sub": "iI", "max": "ilqILQfd", "min": "ilqILQfd"}
_UFUNC = {"add": np.add, "sub": np.subtract, "max": np.maximum, "min": np.minimum}


def prepare(index: Any) -> tuple[Any, list[Any]]:
    """(index with NumPy data inside, the device arrays in it). Raises TypeError for a NumPy array in it."""
    from tests.standin.array import ndarray

    parts = list(index) if isinstance(index, tuple) else [index]
    arrays = []
    masks = 0
    for i, part in enumerate(parts):
        if isinstance(part, ndarray):
            arrays.append(part)
            part = parts[i] = part._a
        elif isinstance(part, np.ndarray):
            raise TypeError("a NumPy array as index of a device array is a hidden copy to the device; move it there first")
        elif isinstance(part, list):
            if any(not isinstance(x, (int, bool, np.integer, list)) for x in part):
                raise IndexError("only integers and nested lists of them may be in a list used as index")
            part = parts[i] = np.asarray(part, dtype=np.int64 if not part else None)
        if isinstance(part, np.ndarray):
            if part.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype.type})")
            masks += part.dtype.kind == "b"
    if masks > 1:
        raise NotImplementedError("CuPy takes at most one boolean array in an index")
    return tuple(parts), arrays


def wrapped(value: np.ndarray, index: tuple) -> tuple:
    """``index`` with its arrays brought into range by wrapping around, as CuPy's kernels do."""
    used = sum(part.ndim if _is_mask(part) else 1 for part in index if part is not None and part is not Ellipsis)
    out, axis = [], 0
    for part in index:
        if part is Ellipsis:
            axis += value.ndim - used
        elif isinstance(part, np.ndarray) and not _is_mask(part):
            size = value.shape[axis] if axis < value.ndim else 1
            if part.size and not size:
                raise IndexError("cannot do a non-empty take from an empty axes.")
            part = part.astype(np.int64) % max(size, 1)
            axis += 1
        elif part is not None:
            axis += part.ndim if _is_mask(part) else 1
        out.append(part)
    return tuple(out)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def take_part(value: np.ndarray, index: tuple) -> np.ndarray:
    """``value[index]``: a view for numbers and slices (also where NumPy gives a scalar), a copy for arrays."""
    if not any(isinstance(part, np.ndarray) for part in index):
        return value[index if Ellipsis in index else (*index, Ellipsis)]
    return np.asarray(value[wrapped(value, index)])


def put_part(value: np.ndarray, index: tuple, new: Any) -> None:
    with np.errstate(all="ignore"):
        value[wrapped(value, index)] = new.astype(value.dtype) if isinstance(new, np.ndarray) else new


def scatter(value: np.ndarray, index: tuple, new: Any, op: str) -> None:
    """``cupy.add.at`` and its kin: repeated indices combine; only the dtypes CuPy has atomics for."""
    if op not in _ADDABLE:
        raise NotImplementedError(f"the stand-in has no scatter {op!r}")
    if value.dtype.char not in _ADDABLE[op]:
        raise TypeError(f"cupy.{_UFUNC[op].__name__}.at does not support {value.dtype}")
    if isinstance(new, np.ndarray):
        new = new.astype(value.dtype)
    _UFUNC[op].at(value, wrapped(value, index), new)


def take(value: np.ndarray, indices: Any, axis: int | None = None) -> np.ndarray:
    """``cupy.take``: indices wrap around."""
    size = value.size if axis is None else value.shape[axis]
    if np.size(indices) and not size:
        raise IndexError("cannot do a non-empty take from an empty axes.")
    return np.asarray(np.take(value, np.asarray(indices).astype(np.int64) % max(size, 1), axis))
