"""cupy.ufunc: the loops recorded from CuPy decide dtypes; NumPy computes, bfloat16 by way of float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.standin import surface
from tests.standin.surface import BF16

_SCALARS = (bool, int, float, complex, np.generic)
by_name: dict[str, Any] = {}


def operand(value: Any) -> tuple[Any, list[Any]]:
    """(NumPy data or scalar, device arrays) of an operand. Raises TypeError for what CuPy refuses: NumPy arrays, lists."""
    from tests.standin.array import ndarray

    if isinstance(value, ndarray):
        return value._a, [value]
    if isinstance(value, _SCALARS):
        return value, []
    raise TypeError(f"Unsupported type {type(value)}")


class ufunc:
    """One of CuPy's universal functions."""

    def __init__(self, name: str, numpy: Any = None) -> None:
        self.name = f"cupy_{name}"
        self.__name__ = name
        self.numpy = numpy or getattr(np, name)
        self.loops = surface.loops(name) or []
        self.nin, self.nout = len(self.loops[0][0]), len(self.loops[0][1])
        self.types = surface.types(name)
        self._memo: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<ufunc {self.name!r}>"

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind", **unknown: Any) -> Any:
        from tests.standin.array import deliver, launch

        if unknown:
            raise TypeError(f"Wrong arguments {unknown}")
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        if len(args) > self.nin:
            out = args[self.nin]
        values, reads = [], []
        for arg in args[: self.nin]:
            value, arrays = operand(arg)
            values.append(value)
            reads += arrays
        ins, outs = self.loop(values, None if dtype is None else np.dtype(dtype))
        with np.errstate(all="ignore"):
            result = self._compute(values, ins, outs)
        if out is None:
            return deliver(result, reads)
        out = out[0] if isinstance(out, tuple) else out
        launch(reads, [out])
        self._store(out, result, casting)
        return out

    def _store(self, out: Any, result: Any, casting: str) -> None:
        if np.broadcast_shapes(result.shape, out.shape) != out.shape:
            raise ValueError(f"operands of shape {result.shape} cannot be written to shape {out.shape}")
        if not np.can_cast(result.dtype, out.dtype, casting):
            raise TypeError(f"output (typecode {result.dtype.char!r}) could not be coerced to {out.dtype.char!r} according to {casting!r}")
        np.copyto(out._a, result, casting=casting)

    def _compute(self, values: list[Any], ins: tuple, outs: tuple) -> Any:
        wide = [np.dtype(np.float32) if d == BF16 else d for d in ins]
        values = [v.astype(d, copy=False) if isinstance(v, np.ndarray) else d.type(v) for v, d in zip(values, wide)]
        if BF16 in ins and np.dtype(np.float32) in wide:
            values = [v.astype(BF16).astype(np.float32) if d == BF16 else v for v, d in zip(values, ins)]
        result = self.numpy(*values)
        if isinstance(result, tuple):
            return tuple(np.asarray(r).astype(o, copy=False) for r, o in zip(result, outs))
        return np.asarray(result).astype(outs[0], copy=False)

    def loop(self, values: list[Any], dtype: np.dtype | None) -> tuple[tuple, tuple]:
        """The first of CuPy's loops the operands fit; Python scalars adapt to it."""
        key = (dtype, *((v.dtype,) if isinstance(v, (np.ndarray, np.generic)) else type(v) for v in values))
        if key not in self._memo:
            self._memo[key] = self._find_loop(values, dtype)
        found = self._memo[key]
        if found is None:
            raise TypeError(f"Wrong type ({key[1:]}) of arguments for {self.name}")
        return found

    def _find_loop(self, values: list[Any], dtype: np.dtype | None) -> Any:
        if dtype is not None:
            return next(((i, o) for i, o in self.loops if all(d == dtype for d in o)), None)
        typed = [v.dtype if isinstance(v, (np.ndarray, np.generic)) else None for v in values]
        strong = max((_score(t.type) for t in typed if t is not None), default=-1)
        weak = max((_score(type(v)) for t, v in zip(typed, values) if t is None), default=-1)
        if not strong >= weak >= 0:  # a scalar of a higher kind counts with its own dtype
            typed = [np.dtype(type(v)) if t is None else t for t, v in zip(typed, values)]
        for ins, outs in self.loops:
            if all(np.can_cast(t, d) if t is not None else _fits(v, d) for t, v, d in zip(typed, values, ins)):
                return ins, outs
        return None

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        op = {"add": "add", "subtract": "sub", "maximum": "max", "minimum": "min"}.get(self.__name__)
        if op is None:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        a._scatter_op(indices, b, op)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return getattr(array, "sum" if self.__name__ == "add" else "prod")(axis, dtype, out, keepdims)

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        return self(A.reshape(A.shape + (1,) * B.ndim), B.reshape((1,) * A.ndim + B.shape), **kwargs)


def _score(kind: type) -> int:
    """CuPy's order of kinds: bool, integers, floating and complex, all else (bfloat16 among it)."""
    if issubclass(kind, (bool, np.bool_)):
        return 0
    if issubclass(kind, (int, np.integer)):
        return 1
    return 2 if issubclass(kind, (float, complex, np.inexact)) else 3


def _fits(scalar: Any, dtype: np.dtype) -> bool:
    """Would a Python scalar take the loop dtype, as CuPy (and NumPy 2) promote it?"""
    try:
        return np.result_type(type(scalar)(0), dtype) == dtype
    except TypeError:
        return False


def _clip(x: Any, low: Any, high: Any) -> Any:
    """CuPy's comparison for comparison: a NaN bound does not count, a NaN value stays."""
    return np.where(np.greater(low, high), high, np.where(np.less(x, low), low, np.where(np.greater(x, high), high, x)))


clip = ufunc("clip", _clip)
where = ufunc("where", np.where)
for _name in surface.RECORD["cupy"]:
    if isinstance(surface.RECORD["cupy"][_name], dict) and isinstance(getattr(np, _name, None), np.ufunc):
        by_name[_name] = ufunc(_name)
