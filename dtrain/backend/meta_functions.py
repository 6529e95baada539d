"""NumPy-named functions on MetaArrays: the shape and dtype NumPy would give, no data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dtrain.backend.meta import (
    MetaArray, broadcast, check_fits, elementwise, matmul, of, result_dtype, stand_in,
)
from dtrain.errors import DeviceError, IndexRangeError, ShapeError

functions: dict[str, Callable] = {"matmul": matmul}

ELEMENTWISE = """
    abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor cbrt ceil clip
    conjugate copysign cos cosh divide equal exp exp2 expm1 floor floor_divide fmod greater greater_equal hypot imag invert isclose
    isfinite isinf isnan left_shift less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor
    maximum minimum mod multiply nan_to_num negative not_equal positive power real reciprocal remainder right_shift rint round sign
    signbit sin sinh sqrt square subtract tan tanh true_divide trunc where
"""
REDUCTIONS = "all any argmax argmin max mean min prod std sum var"
SCANS = "cumprod cumsum"
VIEWS = "broadcast_to diagonal expand_dims flip moveaxis squeeze swapaxes transpose"
SAME = "ascontiguousarray copy partition roll sort tril triu"
NEED_DATA = "allclose array_equal nonzero unique flatnonzero bincount"


def function(f: Callable) -> Callable:
    functions[f.__name__] = f
    return f


def _axes(ndim: int, axis: Any) -> tuple[int, ...]:
    """``axis`` (None: all) as a tuple of numbers from 0."""
    given = range(ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    for a in given:
        if not -ndim <= a < ndim:
            raise IndexRangeError(f"axis {a} is outside [{-ndim}, {ndim - 1}] of an array with {ndim} dimensions")
    return tuple(a % ndim for a in given)


def _replaced(shape: tuple[int, ...], axis: int, *sizes: int) -> tuple[int, ...]:
    return shape[:axis] + sizes + shape[axis + 1:]


def _reduction(numpy_function: Callable) -> Callable:
    def reduce(a: Any, axis: Any = None, *, out: Any = None, keepdims: bool = False, **options: Any) -> MetaArray:
        a = of(a)
        axes = _axes(a.ndim, axis)
        sizes = [1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes]
        if out is not None:
            return out
        return MetaArray(tuple(sizes), result_dtype(numpy_function, a, **{k: v for k, v in options.items() if k == "dtype"}))

    return reduce


def _scan(numpy_function: Callable) -> Callable:
    def scan(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> MetaArray:
        a = of(a)
        _axes(a.ndim, axis)
        return MetaArray(a.size if axis is None else a.shape, result_dtype(numpy_function, a, dtype=dtype))

    return scan


def _view(numpy_function: Callable) -> Callable:
    def view(a: Any, *args: Any, **options: Any) -> MetaArray:
        try:
            return of(numpy_function(stand_in(of(a)), *args, **options))
        except ValueError as error:
            raise ShapeError(f"{numpy_function.__name__} of shape {of(a).shape} with {args or options}: {error}") from None

    return view


def _needs_data(name: str) -> Callable:
    def refuse(a: Any, *args: Any, **options: Any) -> Any:
        raise DeviceError(f"{name} depends on values, and meta tensors have no data (shape {of(a).shape})")

    return refuse


functions.update({name: elementwise(getattr(np, name)) for name in ELEMENTWISE.split()})
functions.update({name: _reduction(getattr(np, name)) for name in REDUCTIONS.split()})
functions.update({name: _scan(getattr(np, name)) for name in SCANS.split()})
functions.update({name: _view(getattr(np, name)) for name in VIEWS.split()})
functions.update({name: lambda a, *args, **options: of(a).copy() for name in SAME.split()})
functions.update({name: _needs_data(name) for name in NEED_DATA.split()})


# ---- making arrays

def _filled(shape: Any, dtype: Any = float) -> MetaArray:
    return MetaArray(shape, dtype)


def _filled_like(a: Any, dtype: Any = None, shape: Any = None) -> MetaArray:
    a = of(a)
    return MetaArray(a.shape if shape is None else shape, a.dtype if dtype is None else dtype)


functions.update(dict.fromkeys(["empty", "zeros", "ones"], _filled))
functions.update(dict.fromkeys(["empty_like", "zeros_like", "ones_like"], _filled_like))


@function
def full(shape: Any, fill_value: Any, dtype: Any = None) -> MetaArray:
    return MetaArray(shape, of(fill_value).dtype if dtype is None else dtype)


@function
def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> MetaArray:
    return _filled_like(a, dtype, shape)


@function
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> MetaArray:
    start, stop = (0, start) if stop is None else (start, stop)
    return MetaArray(max(0, math.ceil((stop - start) / step)), np.result_type(start, stop, step) if dtype is None else dtype)


@function
def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None) -> MetaArray:
    return MetaArray(num, float if dtype is None else dtype)


@function
def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> MetaArray:
    return MetaArray((N, N if M is None else M), dtype)


@function
def asarray(a: Any, dtype: Any = None) -> MetaArray:
    a = of(a)
    return a if dtype is None else a.astype(dtype, copy=False)


@function
def array(a: Any, dtype: Any = None, copy: Any = True, ndmin: int = 0) -> MetaArray:
    a = asarray(a, dtype)
    return MetaArray((1,) * (ndmin - a.ndim) + a.shape, a.dtype)


# ---- shapes

@function
def reshape(a: Any, shape: Any) -> MetaArray:
    return of(a).reshape(shape)


@function
def ravel(a: Any) -> MetaArray:
    return of(a).ravel()


@function
def concatenate(arrays: Any, axis: int | None = 0, dtype: Any = None) -> MetaArray:
    arrays = [of(a).ravel() if axis is None else of(a) for a in arrays]
    (axis,) = _axes(arrays[0].ndim, axis or 0)
    if len({_replaced(a.shape, axis) for a in arrays}) != 1:
        raise ShapeError(f"cannot concatenate shapes {[a.shape for a in arrays]} along axis {axis}: the others must agree")
    total = sum(a.shape[axis] for a in arrays)
    return MetaArray(_replaced(arrays[0].shape, axis, total), np.result_type(*[a.dtype for a in arrays]) if dtype is None else dtype)


@function
def stack(arrays: Any, axis: int = 0) -> MetaArray:
    arrays = [of(a) for a in arrays]
    if len({a.shape for a in arrays}) != 1:
        raise ShapeError(f"cannot stack shapes {[a.shape for a in arrays]}: they must be equal")
    (axis,) = _axes(arrays[0].ndim + 1, axis)
    shape = arrays[0].shape
    return MetaArray(shape[:axis] + (len(arrays),) + shape[axis:], np.result_type(*[a.dtype for a in arrays]))


@function
def split(a: Any, indices_or_sections: Any, axis: int = 0) -> list[MetaArray]:
    a = of(a)
    (axis,) = _axes(a.ndim, axis)
    size = a.shape[axis]
    if isinstance(indices_or_sections, int):
        if size % indices_or_sections:
            raise ShapeError(f"cannot split axis {axis} of shape {a.shape} into {indices_or_sections} equal parts")
        step = size // indices_or_sections
        indices_or_sections = range(step, size, step) if step else [0] * (indices_or_sections - 1)
    bounds = [0, *indices_or_sections, size]
    return [MetaArray(_replaced(a.shape, axis, len(range(size)[i:j])), a.dtype) for i, j in zip(bounds, bounds[1:])]


@function
def pad(a: Any, pad_width: Any, mode: str = "constant", **options: Any) -> MetaArray:
    a = of(a)
    widths = np.broadcast_to(np.asarray(pad_width), (a.ndim, 2)).tolist()
    return MetaArray(tuple(n + before + after for n, (before, after) in zip(a.shape, widths)), a.dtype)


@function
def tile(a: Any, reps: Any) -> MetaArray:
    a, reps = of(a), (reps,) if isinstance(reps, int) else tuple(reps)
    ndim = max(a.ndim, len(reps))
    shape, reps = (1,) * (ndim - a.ndim) + a.shape, (1,) * (ndim - len(reps)) + reps
    return MetaArray(tuple(n * r for n, r in zip(shape, reps)), a.dtype)


@function
def repeat(a: Any, repeats: Any, axis: int | None = None) -> MetaArray:
    a = of(a).ravel() if axis is None else of(a)
    (axis,) = _axes(a.ndim, axis or 0)
    if isinstance(repeats, MetaArray):
        raise DeviceError("repeat with a tensor of counts depends on values, and meta tensors have no data")
    total = int(np.broadcast_to(np.asarray(repeats), (a.shape[axis],)).sum())
    return MetaArray(_replaced(a.shape, axis, total), a.dtype)


@function
def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[MetaArray, ...]:
    sizes = [of(a).size for a in arrays]
    if indexing == "xy":
        sizes[:2] = sizes[:2][::-1]
    return tuple(MetaArray(tuple(sizes), of(a).dtype) for a in arrays)


# ---- indices

@function
def take(a: Any, indices: Any, axis: int | None = None) -> MetaArray:
    a = of(a).ravel() if axis is None else of(a)
    (axis,) = _axes(a.ndim, axis or 0)
    return MetaArray(_replaced(a.shape, axis, *of(indices).shape), a.dtype)


@function
def take_along_axis(a: Any, indices: Any, axis: int) -> MetaArray:
    a, indices = of(a), of(indices)
    (axis,) = _axes(a.ndim, axis)
    others = broadcast(_replaced(a.shape, axis, 1), _replaced(indices.shape, axis, 1))
    return MetaArray(_replaced(others, axis, indices.shape[axis]), a.dtype)


@function
def put_along_axis(a: Any, indices: Any, values: Any, axis: int) -> None:
    check_fits(of(values).shape, of(indices).shape)


@function
def copyto(target: Any, source: Any, casting: str = "same_kind") -> None:
    check_fits(of(source).shape, target.shape)


@function
def argsort(a: Any, axis: int = -1, **options: Any) -> MetaArray:
    return MetaArray(of(a).shape, np.int64)


@function
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> MetaArray:
    return MetaArray(of(v).shape, np.int64)


# ---- contractions

@function
def tensordot(a: Any, b: Any, axes: Any = 2) -> MetaArray:
    a, b = of(a), of(b)
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    left, right = (_axes(x.ndim, tuple(axis) if not isinstance(axis, int) else axis) for x, axis in zip((a, b), axes))
    if [a.shape[i] for i in left] != [b.shape[j] for j in right]:
        raise ShapeError(f"cannot contract axes {left} of {a.shape} with axes {right} of {b.shape}: sizes differ")
    rest = [n for i, n in enumerate(a.shape) if i not in left] + [n for j, n in enumerate(b.shape) if j not in right]
    return MetaArray(tuple(rest), np.result_type(a.dtype, b.dtype))


@function
def einsum(subscripts: str, *operands: Any, optimize: Any = False) -> MetaArray:
    arrays = [of(x) for x in operands]
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(arrays):
        raise ShapeError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(arrays)}")
    sizes: dict[str, int] = {}
    rest: tuple[int, ...] = ()
    for term, a in zip(terms, arrays):
        rest = broadcast(rest, _bind(subscripts, term, a.shape, sizes))
    if not arrow:
        letters = "".join(terms).replace(".", "")
        output = "..." + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    before, dots, after = output.partition("...")
    shape = [sizes[x] for x in before] + list(rest if dots else ()) + [sizes[x] for x in after]
    return MetaArray(tuple(shape), np.result_type(*[a.dtype for a in arrays]))


def _bind(subscripts: str, term: str, shape: tuple[int, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    """Record the size of each letter of ``term``; the sizes under its ellipsis are returned."""
    before, dots, after = term.partition("...")
    covered = len(shape) - len(before) - len(after)
    if covered < 0 or covered and not dots:
        raise ShapeError(f"einsum {subscripts!r}: term {term!r} does not match an operand of shape {shape}")
    named = list(zip(before, shape)) + list(zip(after, shape[len(before) + covered:]))
    for letter, n in named:
        if sizes.setdefault(letter, n) not in (n, 1) and n != 1:
            raise ShapeError(f"einsum {subscripts!r}: {letter!r} has sizes {sizes[letter]} and {n}")
        sizes[letter] = max(sizes[letter], n)
    return shape[len(before):len(before) + covered]
