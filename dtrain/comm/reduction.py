"""What ranks do with each other's numbers: the one place where a reduction happens.

Half types are widened to float32, reduced, and rounded once; every caller adds in rank order, so the
result is the same bits on every rank and in every chunking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.errors import ArgumentError, DtypeError

UFUNCS = {
    "sum": np.add,
    "avg": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}
_BITWISE = frozenset(("band", "bor", "bxor"))
_FLOAT32 = np.dtype(np.float32)


def is_narrow(dtype: np.dtype) -> bool:
    """Whether ``dtype`` is a float too narrow to add in: float16, bfloat16 and the float8 family."""
    return dtype == np.float16 or (dtype.kind == "V" and dtype.names is None and dtype.name != "void")


def check_dtype(dtype: np.dtype) -> None:
    """Refuse arrays whose bytes mean nothing on another rank."""
    if dtype.hasobject or dtype.kind in "USMm" or dtype.names is not None:
        raise DtypeError(f"cannot send an array of dtype {dtype}; send numbers, or use the object collectives")


def check(op: str, dtype: np.dtype) -> None:
    """Raise ArgumentError for an unknown ``op`` and DtypeError for one that ``dtype`` does not have."""
    check_dtype(dtype)
    if op not in UFUNCS:
        raise ArgumentError(f"unknown reduction {op!r}; known are {', '.join(UFUNCS)}")
    if op in _BITWISE and dtype.kind not in "biu":
        raise DtypeError(f"{op} works on bool and integers, not on {dtype}; use sum, prod, max or min")
    if op == "avg" and dtype.kind in "biu":
        raise DtypeError(f"avg works on floating-point numbers, not on {dtype}; use sum and divide as you mean it")
    if op in ("max", "min") and dtype.kind == "c":
        raise DtypeError(f"{op} has no meaning for {dtype}: complex numbers have no order")


def combine(parts: Sequence[np.ndarray], op: str, out: np.ndarray) -> None:
    """Reduce ``parts`` (one equal-shaped array per rank, in rank order) into ``out``, which may be the first or second."""
    if is_narrow(out.dtype):
        wide = np.array(parts[0], dtype=_FLOAT32)
        _fold(wide, [part.astype(_FLOAT32) for part in parts[1:]], op, wide)
        if op == "avg":
            wide /= len(parts)
        out[...] = wide.astype(out.dtype)
        return
    _fold(parts[0], parts[1:], op, out)
    if op == "avg":
        out /= len(parts)


def _fold(first: np.ndarray, rest: Sequence[np.ndarray], op: str, out: np.ndarray) -> None:
    """The inner loop: out = first op rest[0] op rest[1] ..., left to right."""
    ufunc = UFUNCS[op]
    if not rest:
        out[...] = first
        return
    ufunc(first, rest[0], out=out)
    for part in rest[1:]:
        ufunc(out, part, out=out)
