"""Where CuPy's functions are not enough: dtypes without a kernel, and bfloat16 that comes back as float32.

CuPy computes in bfloat16 but has no loop of ``where`` for it (nor of ``tril`` and ``triu``, which are made of it), cannot
sort it, scan it or add it at indices, and multiplies stacks of matrices only in float32 and float64. Selecting moves the
bits as unsigned integers; the rest computes in float32. Other dtypes go to CuPy as they are.
"""

from __future__ import annotations

from typing import Any, Callable

import ml_dtypes
import numpy as np

BF16 = np.dtype(ml_dtypes.bfloat16)
ADDABLE = frozenset(map(np.dtype, "iIlLqQefd"))  # CuPy adds at indices with these: int32 and wider, float16 and wider
_WIDE = {BF16: np.float32, np.dtype(bool): np.int32} | {np.dtype(c): np.int32 for c in "bBhH"}


def lookup(cupy: Any, name: str) -> Callable[..., Any]:
    """``cupy.<name>``, or what stands in for it where bfloat16 arrives."""
    plain = getattr(cupy, name)
    if name == "where":
        return lambda condition, x=None, y=None: _where(plain, condition, x, y)
    if name in ("tril", "triu"):
        return lambda m, k=0: plain(m.view(np.uint16), k).view(BF16) if m.dtype == BF16 else plain(m, k)
    if name in ("sort", "partition", "cumsum", "cumprod", "matmul"):
        return lambda *args, **kwargs: _in_float32(plain, args, kwargs)
    if name == "clip":
        return lambda a, a_min, a_max: _clip(cupy, a, a_min, a_max)
    if name in ("argsort", "searchsorted"):
        return lambda *args, **kwargs: plain(*map(_widened, args), **kwargs)
    return plain


def scatter_add(cupy: Any, target: Any, index: Any, values: Any) -> None:
    """``target[index] += values`` with repeated indices adding up, in any dtype."""
    if target.dtype in ADDABLE:
        cupy.add.at(target, index, values)
        return
    wide = target.astype(_WIDE[target.dtype])
    cupy.add.at(wide, index, values.astype(wide.dtype) if hasattr(values, "dtype") else values)
    target[...] = wide.astype(target.dtype)


def _where(plain: Callable[..., Any], condition: Any, x: Any, y: Any) -> Any:
    arrays = [getattr(a, "dtype", None) == BF16 for a in (x, y)]
    if all(arrays):
        return plain(condition, x.view(np.uint16), y.view(np.uint16)).view(BF16)
    scalars = [isinstance(a, (bool, int, float)) for a in (x, y)]
    out = plain(condition, x, y)
    return out.astype(BF16) if any(arrays) and any(scalars) else out


def _clip(cupy: Any, a: Any, low: Any, high: Any) -> Any:
    """CuPy's clip, which needs both bounds of booleans and of bfloat16."""
    if a.dtype.kind not in "bV":
        return cupy.clip(a, low, high)
    wide = _widened(a)
    out = wide if low is None else cupy.maximum(wide, _widened(low))
    out = out if high is None else cupy.minimum(out, _widened(high))
    scalars = all(isinstance(b, (bool, int, float, type(None))) or b.dtype == BF16 for b in (low, high))
    return out.astype(BF16) if a.dtype == BF16 and scalars else out


def _in_float32(plain: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    halves = [getattr(a, "dtype", None) == BF16 for a in args]
    if not any(halves):
        return plain(*args, **kwargs)
    out = plain(*map(_widened, args), **kwargs)
    return out.astype(BF16) if all(h or not hasattr(a, "dtype") for h, a in zip(halves, args)) else out


def _widened(array: Any) -> Any:
    return array.astype(np.float32) if getattr(array, "dtype", None) == BF16 else array
