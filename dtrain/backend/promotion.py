"""Type promotion: PyTorch's rules, ours, never NumPy's.

Operands fall into categories bool < integer < floating < complex, and into three classes: arrays with dimensions,
0-dimensional arrays, Python scalars. A class decides the result's dtype alone unless a lower class has a higher category:

    int32 array (3,)  * 2.5             -> default dtype       (the scalar's category is higher)
    float32 array (3,) * float64 0-dim  -> float32             (same category: dimensions win)
    float32 array (3,) * float64 (3,)   -> float64             (same class: the table)

Half precision with a complex scalar gives complex64 (PyTorch gives its experimental complex32, which dtrain has not).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dtrain.backend import dtypes
from dtrain.backend.dtypes import BOOL, COMPLEX, FLOAT, INT, dtype
from dtrain.errors import ArgumentError, DtypeError

_SCALAR_CATEGORY = {bool: BOOL, int: INT, float: FLOAT, complex: COMPLEX}
_KIND_CATEGORY = dtypes._CATEGORY_OF_KIND
_INT_RANGE = {d.np: (np.iinfo(d.np).min, np.iinfo(d.np).max) for d in dtypes.ALL if d.category == INT}
_memo: dict[tuple, np.dtype] = {}


@lru_cache(maxsize=None)
def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype that both ``a`` and ``b`` convert to without a loss of category (float16 with bfloat16: float32)."""
    if a is b:
        return a
    if a.category != b.category:
        low, high = (a, b) if a.category < b.category else (b, a)
        return dtypes.complex128 if high.is_complex and low is dtypes.float64 else high
    if a.itemsize == b.itemsize:                    # uint8 with int8, float16 with bfloat16: neither holds the other
        return dtypes.float32 if a.is_floating_point else dtypes.int16
    return a if a.itemsize > b.itemsize else b


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether a cast keeps the category: complex to real, floating to integer and number to bool are refused."""
    return dtypes.as_dtype(from_).category <= dtypes.as_dtype(to).category


def result_type(*operands) -> dtype:
    """The dtype of an operation on ``operands``: arrays of any backend (a NumPy scalar counts as 0-dim) or Python scalars."""
    return dtypes.from_numpy(_result(tuple(map(_key, operands))))


def promote_arrays(xp, arrays: list) -> list:
    """``arrays`` with every array cast to their result_type; None and Python scalars pass through.

    An integer scalar that the (integer) result cannot hold wraps around as in PyTorch. Scalars alone become 0-dim arrays.
    """
    first, highest = None, -1
    for a in arrays:
        kind = type(a)
        if kind in _SCALAR_CATEGORY:
            if _SCALAR_CATEGORY[kind] > highest:
                highest = _SCALAR_CATEGORY[kind]
        elif a is not None:
            if first is None:
                first = a.dtype
            elif a.dtype is not first:
                return _cast(xp, arrays)
    if highest < 0:
        return arrays
    if first is None or highest > _KIND_CATEGORY[first.kind] or highest == INT == _KIND_CATEGORY[first.kind]:
        return _cast(xp, arrays)
    return arrays


def _cast(xp, arrays: list) -> list:
    target = _result(tuple([_key(a) for a in arrays if a is not None]))
    if all(a is None or type(a) in _SCALAR_CATEGORY for a in arrays):
        return [a if a is None else xp.asarray(a, dtype=target) for a in arrays]
    low, high = _INT_RANGE.get(target, (0, 0))
    out = []
    for a in arrays:
        if type(a) in _SCALAR_CATEGORY:
            if type(a) is int and high and not low <= a <= high:
                a = _wrap(a, target)
        elif a is not None and a.dtype is not target:
            a = a.astype(target, copy=False)
        out.append(a)
    return out


def _wrap(value: int, target: np.dtype) -> int:
    if not -1 << 63 <= value < 1 << 63:
        raise ArgumentError(f"integer {value} does not fit in 64 bits; use a float, or a smaller integer")
    bits = 8 * target.itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if target.kind == "i" and value >> (bits - 1) else value


def _key(operand) -> tuple:
    kind = type(operand)
    return (kind, False) if kind in _SCALAR_CATEGORY else (operand.dtype, operand.ndim == 0)


def _result(keys: tuple) -> np.dtype:
    full = (dtypes._default, keys)
    found = _memo.get(full)
    if found is None:
        found = _memo[full] = _combine(keys).np
    return found


def _combine(keys: tuple) -> dtype:
    if not keys:
        raise DtypeError("result_type() needs at least one array or scalar")
    dimensioned = zero_dim = scalar = None
    for kind, is_zero_dim in keys:
        if kind in _SCALAR_CATEGORY:
            scalar = _join(scalar, _scalar_dtype(kind))
        elif is_zero_dim:
            zero_dim = _join(zero_dim, dtypes.from_numpy(kind))
        else:
            dimensioned = _join(dimensioned, dtypes.from_numpy(kind))
    return _override(dimensioned, _override(zero_dim, scalar))


def _scalar_dtype(kind: type) -> dtype:
    if kind is float:
        return dtypes.get_default_dtype()
    return dtypes.default_complex_dtype() if kind is complex else dtypes.as_dtype(kind)


def _join(a: dtype | None, b: dtype) -> dtype:
    return b if a is None else promote_types(a, b)


def _override(strong: dtype | None, weak: dtype | None) -> dtype:
    """The result when ``strong`` comes from a class that decides over ``weak``'s unless its category is lower."""
    if strong is None or weak is None:
        return weak if strong is None else strong
    if strong.category >= weak.category:
        return strong
    if strong.is_floating_point:
        return strong.to_complex()
    return promote_types(strong, weak)
