"""Arrays of the ``meta`` device: a shape and a dtype, no data. Models too large for memory are built and planned on them.

Result dtypes are asked of NumPy with empty arrays and remembered, so that nothing here repeats NumPy's rules;
shapes are computed. Zero-stride stand-ins (one element, any shape) give the shapes of views for free.
The functions on MetaArrays, named as NumPy's, are in `meta_functions`, and reachable as ``meta.functions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from dtrain.errors import DeviceError, IndexRangeError, ShapeError

SCALARS = (bool, int, float, complex, type(None))      # what stands among operands and has no shape
_result_dtypes: dict[tuple, np.dtype] = {}


class MetaArray:
    """A shape (tuple of ints) and a NumPy dtype behaving as a C-contiguous array; reading values raises DeviceError."""

    __slots__ = ("shape", "dtype")
    __array_ufunc__ = None                      # ndarray + MetaArray comes to our __radd__
    base = None

    def __init__(self, shape: int | tuple[int, ...], dtype: Any) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(map(int, shape))
        self.dtype = np.dtype(dtype)

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.dtype.itemsize)
    T = property(lambda self: MetaArray(self.shape[::-1], self.dtype))
    flags = property(lambda self: stand_in(MetaArray((), self.dtype)).flags)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(self.itemsize * math.prod(self.shape[i + 1:]) for i in range(self.ndim))

    def astype(self, dtype: Any, copy: bool = True) -> MetaArray:
        return self if not copy and self.dtype == dtype else MetaArray(self.shape, dtype)

    def copy(self) -> MetaArray:
        return MetaArray(self.shape, self.dtype)

    def reshape(self, *shape: Any) -> MetaArray:
        return MetaArray(resolve_shape(self.shape, shape[0] if len(shape) == 1 else shape), self.dtype)

    def ravel(self) -> MetaArray:
        return MetaArray(self.size, self.dtype)

    def transpose(self, *axes: Any) -> MetaArray:
        return of(stand_in(self).transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> MetaArray:
        return of(stand_in(self).swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> MetaArray:
        return of(stand_in(self).squeeze(axis))

    def fill(self, value: Any) -> None:
        """Nothing to write."""

    def __getitem__(self, index: Any) -> MetaArray:
        return MetaArray(indexed_shape(self.shape, index), self.dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        check_fits(getattr(value, "shape", ()), indexed_shape(self.shape, index))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-dimensional array")
        return self.shape[0]

    def __iter__(self) -> Iterator[MetaArray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"MetaArray(shape={self.shape}, dtype={self.dtype})"

    def _no_data(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DeviceError(f"meta tensors have no data to read (shape {self.shape}, {self.dtype}); move the model to a real "
                          "device with to_empty(device=...) and initialise or load it first")

    __bool__ = __int__ = __float__ = __complex__ = __index__ = __array__ = item = tolist = tobytes = _no_data  # type: ignore
    __hash__ = object.__hash__                  # == compares elements, so identity is the only hash


def _operators() -> None:
    """Give MetaArray every arithmetic, bitwise and comparison operator, reflected and in place too."""
    names = "add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power matmul and:bitwise_and " \
            "or:bitwise_or xor:bitwise_xor lshift:left_shift rshift:right_shift lt:less le:less_equal gt:greater ge:greater_equal " \
            "eq:equal ne:not_equal"
    for name in names.split():
        short, _, full = name.partition(":")
        function = matmul if short == "matmul" else elementwise(getattr(np, full or short))
        setattr(MetaArray, f"__{short}__", function)
        if short not in ("lt", "le", "gt", "ge", "eq", "ne"):
            setattr(MetaArray, f"__r{short}__", lambda self, other, f=function: f(other, self))
            setattr(MetaArray, f"__i{short}__", lambda self, other, f=function: f(self, other, out=self))
    for short, full in (("neg", "negative"), ("pos", "positive"), ("abs", "absolute"), ("invert", "invert")):
        setattr(MetaArray, f"__{short}__", elementwise(getattr(np, full)))


def of(array: Any) -> MetaArray:
    """The shape and dtype of a real array, Python number or nested list as a MetaArray."""
    if isinstance(array, MetaArray):
        return array
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    return MetaArray(array.shape, array.dtype)


def stand_in(array: MetaArray) -> np.ndarray:
    """A real array of that shape and dtype holding one element: every stride is 0."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def result_dtype(function: Callable, *operands: Any, **options: Any) -> np.dtype:
    """The dtype ``function`` of NumPy gives for operands of these dtypes; Python scalars count as such."""
    key = (function, tuple(type(x) if type(x) in SCALARS else x.dtype for x in operands), tuple(sorted(options.items())))
    found = _result_dtypes.get(key)
    if found is None:
        samples = [None if x is None else type(x)(1) if type(x) in SCALARS else np.ones(1, x.dtype) for x in operands]
        found = _result_dtypes[key] = function(*samples, **options).dtype
    return found


def elementwise(function: Callable) -> Callable[..., MetaArray]:
    """The meta counterpart of a NumPy function that works element by element, broadcasting its operands."""

    def apply(*operands: Any, out: Any = None, **options: Any) -> MetaArray:
        operands = tuple(x if type(x) in SCALARS else of(x) for x in operands)
        shape = broadcast(*[x.shape for x in operands if type(x) not in SCALARS])
        if out is not None:
            check_fits(shape, out.shape)
            return out
        return MetaArray(shape, result_dtype(function, *operands, **options))

    apply.__name__ = function.__name__
    return apply


def matmul(a: Any, b: Any, out: Any = None) -> MetaArray:
    """The matrix product's shape, leading dimensions broadcasting as in np.matmul."""
    a, b = of(a), of(b)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul needs at least one dimension on each side, got shapes {a.shape} and {b.shape}")
    left, right = a.shape if a.ndim > 1 else (1, *a.shape), b.shape if b.ndim > 1 else (*b.shape, 1)
    if left[-1] != right[-2]:
        raise ShapeError(f"cannot multiply shapes {a.shape} and {b.shape}: inner sizes {left[-1]} and {right[-2]} differ")
    rows, columns = left[-2:-1] if a.ndim > 1 else (), right[-1:] if b.ndim > 1 else ()
    return MetaArray(broadcast(left[:-2], right[:-2]) + rows + columns, result_dtype(np.matmul, a, b))


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; ShapeError naming all shapes if there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"shapes {' and '.join(map(str, shapes))} do not broadcast together") from None


def check_fits(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    """ShapeError unless values of ``shape`` can be written into ``target``."""
    while len(shape) > len(target) and shape[0] == 1:
        shape = shape[1:]
    if broadcast(shape, target) != tuple(target):
        raise ShapeError(f"values of shape {shape} do not fit into shape {target}")


def resolve_shape(old: tuple[int, ...], new: Any) -> tuple[int, ...]:
    """``new`` with its one -1 replaced by what the element count of ``old`` leaves."""
    new = (int(new),) if not isinstance(new, (tuple, list)) else tuple(map(int, new))
    known, total = math.prod(n for n in new if n != -1), math.prod(old)
    if new.count(-1) == 1 and known and total % known == 0:
        new = tuple(total // known if n == -1 else n for n in new)
    if -1 in new or math.prod(new) != total:
        raise ShapeError(f"cannot reshape {old} ({total} elements) to {new}")
    return new


def indexed_shape(shape: tuple[int, ...], index: Any) -> tuple[int, ...]:
    """The shape of ``array[index]`` by NumPy's rules for integers, slices, None, ``...``, index arrays and masks."""
    index = index if isinstance(index, tuple) else (index,)
    index = tuple(x if _is_basic(x) else _index_array(x) for x in index)
    if all(map(_is_basic, index)):
        return _basic_view(shape, index).shape
    parts = [part for x in index for part in ([x] if _is_basic(x) else _integer_parts(x))]
    consumed = sum(x is not None and x is not Ellipsis for x in parts)
    if Ellipsis not in [x for x in parts if _is_basic(x)]:
        parts.append(Ellipsis)
    if consumed > len(shape):
        raise IndexRangeError(f"too many indices: {consumed} for the {len(shape)} dimensions of shape {shape}")
    at = next(i for i, x in enumerate(parts) if x is Ellipsis)
    parts[at:at + 1] = [slice(None)] * (len(shape) - consumed)
    return _advanced_shape(shape, parts)


def _advanced_shape(shape: tuple[int, ...], parts: list) -> tuple[int, ...]:
    """``parts`` has one entry a dimension, and None for new ones. Index arrays' common shape stands where they stood,
    or in front when they are not side by side; integers among them count as index arrays."""
    arrays = [i for i, x in enumerate(parts) if not _is_basic(x) or isinstance(x, (int, np.integer))]
    common = broadcast(*[getattr(parts[i], "shape", ()) for i in arrays])
    together = arrays[-1] - arrays[0] == len(arrays) - 1
    sizes, dims = [], iter(shape)
    for i, part in enumerate(parts):
        size = 1 if part is None else next(dims)
        if i in arrays:
            if together and i == arrays[0]:
                sizes.extend(common)
        else:
            sizes.append(size if part is None else len(range(size)[part]))
    return tuple(sizes) if together else common + tuple(sizes)


def _is_basic(x: Any) -> bool:
    return x is None or x is Ellipsis or isinstance(x, (slice, np.integer)) or type(x) is int


def _index_array(x: Any) -> Any:
    return x if isinstance(x, (MetaArray, np.ndarray)) else np.asarray(x, dtype=np.int64 if np.size(x) == 0 else None)


def _integer_parts(x: Any) -> list:
    """An integer index array as itself, a mask as one 1-D index array per dimension it covers."""
    if x.dtype != bool:
        return [x]
    if isinstance(x, MetaArray):
        raise DeviceError(f"the result of a boolean index has a data-dependent shape, and meta tensors have no data (mask {x.shape})")
    return list(x.nonzero()) if x.ndim else [None, np.zeros(int(x), int)]


def _basic_view(shape: tuple[int, ...], index: tuple) -> np.ndarray:
    try:
        return np.broadcast_to(np.zeros((), np.int8), shape)[(*index, ...) if Ellipsis not in index else index]
    except IndexError as error:
        raise IndexRangeError(f"{error} (shape {shape})") from None


_operators()


def __getattr__(name: str) -> Any:
    if name == "functions":
        from dtrain.backend.meta_functions import functions

        return functions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
