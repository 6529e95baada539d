"""The dtypes of dtrain: one interned object each, named and behaving as PyTorch's, carrying its NumPy dtype.

bfloat16 has no NumPy dtype of its own; it comes from ml_dtypes.
"""

from __future__ import annotations

import builtins

import ml_dtypes
import numpy as np

from dtrain.errors import DtypeError

BOOL, INT, FLOAT, COMPLEX = range(4)                # promotion categories, lowest first
_CATEGORY_OF_KIND = {"b": BOOL, "i": INT, "u": INT, "f": FLOAT, "V": FLOAT, "c": COMPLEX}


class dtype:
    """The element type of a tensor; there is exactly one object per type, so compare with ``is`` or ``==``."""

    __slots__ = ("name", "np", "itemsize", "category", "is_floating_point", "is_complex", "is_half", "is_signed")

    def __init__(self, name: str, numpy_dtype: np.dtype) -> None:
        self.name = name
        self.np = numpy_dtype
        self.itemsize = numpy_dtype.itemsize
        self.category = _CATEGORY_OF_KIND[numpy_dtype.kind]
        self.is_floating_point = self.category == FLOAT
        self.is_complex = self.category == COMPLEX
        self.is_half = self.is_floating_point and self.itemsize == 2
        self.is_signed = numpy_dtype.kind not in "bu"

    def __repr__(self) -> str:
        return f"dtrain.{self.name}"

    def __reduce__(self):
        return by_name, (self.name,)

    def __copy__(self) -> "dtype":
        return self

    def __deepcopy__(self, memo) -> "dtype":
        return self

    def to_real(self) -> "dtype":
        """The dtype of this dtype's real part."""
        return _REAL.get(self, self)

    def to_complex(self) -> "dtype":
        """The complex dtype whose parts are this dtype (complex64 for the half types, which have none here)."""
        if self.is_complex:
            return self
        if not self.is_floating_point:
            raise DtypeError(f"{self} has no complex counterpart; convert to a floating dtype first")
        return complex128 if self is float64 else complex64


float64 = dtype("float64", np.dtype(np.float64))
float32 = dtype("float32", np.dtype(np.float32))
float16 = dtype("float16", np.dtype(np.float16))
bfloat16 = dtype("bfloat16", np.dtype(ml_dtypes.bfloat16))
int64 = dtype("int64", np.dtype(np.int64))
int32 = dtype("int32", np.dtype(np.int32))
int16 = dtype("int16", np.dtype(np.int16))
int8 = dtype("int8", np.dtype(np.int8))
uint8 = dtype("uint8", np.dtype(np.uint8))
bool_ = dtype("bool", np.dtype(np.bool_))
complex64 = dtype("complex64", np.dtype(np.complex64))
complex128 = dtype("complex128", np.dtype(np.complex128))

ALL = (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool_, complex64, complex128)

_REAL = {complex64: float32, complex128: float64}
_BY_NAME = {d.name: d for d in ALL}
_BY_NUMPY = {d.np: d for d in ALL}
_BY_PYTHON = {builtins.bool: bool_, builtins.int: int64, builtins.float: float64, builtins.complex: complex128}
_default = float32


def by_name(name: str) -> dtype:
    """The dtype called ``name`` ("float32"); DtypeError listing the names otherwise."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise DtypeError(f"no dtype is called {name!r}; there are {', '.join(_BY_NAME)}") from None


def from_numpy(numpy_dtype: np.dtype) -> dtype:
    """The dtype of arrays of ``numpy_dtype`` (an np.dtype object); DtypeError if dtrain has no such type."""
    try:
        return _BY_NUMPY[numpy_dtype]
    except KeyError:
        raise DtypeError(_unsupported(numpy_dtype)) from None


def _unsupported(numpy_dtype: np.dtype) -> str:
    hint = "convert the array with .astype(...) first"
    if numpy_dtype.kind == "u":
        hint = "the only unsigned type is uint8; convert with .astype(np.int64)"
    elif numpy_dtype.kind in "fiuc" and not numpy_dtype.isnative:
        hint = "its byte order is foreign; convert with .astype(dtype.newbyteorder('='))"
    elif numpy_dtype.kind == "O":
        hint = "its elements are Python objects, perhaps rows of unequal length; convert to a numeric dtype"
    return f"numpy dtype {numpy_dtype} has no dtrain counterpart (supported: {', '.join(_BY_NAME)}); {hint}"


def as_dtype(x) -> dtype:
    """The dtype meant by ``x``: a dtype, an np.dtype or NumPy scalar type, Python bool/int/float/complex, or a name."""
    if type(x) is dtype:
        return x
    if isinstance(x, str):
        return by_name(x)
    if isinstance(x, type) and x in _BY_PYTHON:
        return _BY_PYTHON[x]
    if isinstance(x, np.dtype) or isinstance(x, type) and (issubclass(x, np.generic) or x is ml_dtypes.bfloat16):
        return from_numpy(np.dtype(x))
    raise DtypeError(f"expected a dtype such as dtrain.float32, got {x!r} of type {type(x).__name__}")


def get_default_dtype() -> dtype:
    """The dtype of new floating tensors (float32 unless changed)."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Make ``d``, a floating dtype, the dtype of new floating tensors in this process."""
    global _default
    d = as_dtype(d)
    if not d.is_floating_point:
        raise DtypeError(f"the default dtype must be floating, got {d}; try dtrain.float32 or dtrain.float64")
    _default = d


def default_complex_dtype() -> dtype:
    """The dtype of new complex tensors: the complex counterpart of the default dtype."""
    return _default.to_complex()


class finfo:
    """Limits of a floating dtype: bits, eps, max, min, tiny, smallest_normal, resolution (Python numbers), dtype (name)."""

    __slots__ = ("dtype", "bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution")

    def __init__(self, type: dtype | None = None) -> None:
        d = _default if type is None else as_dtype(type).to_real()
        if not d.is_floating_point:
            raise DtypeError(f"finfo() takes a floating or complex dtype, got {d}; use iinfo() for integers")
        limits = ml_dtypes.finfo(d.np)
        self.dtype = d.name
        self.bits = 8 * d.itemsize
        for name in ("eps", "max", "min", "tiny", "smallest_normal"):
            setattr(self, name, builtins.float(getattr(limits, name)))
        self.resolution = 10.0 ** -builtins.int(limits.precision)

    def __repr__(self) -> str:
        return _fields(self)


class iinfo:
    """Limits of an integer dtype: bits, max, min (Python ints) and dtype (its name)."""

    __slots__ = ("dtype", "bits", "max", "min")

    def __init__(self, type: dtype) -> None:
        d = as_dtype(type)
        if d.category != INT:
            raise DtypeError(f"iinfo() takes an integer dtype, got {d}; use finfo() for floating ones")
        limits = np.iinfo(d.np)
        self.dtype, self.bits, self.max, self.min = d.name, limits.bits, builtins.int(limits.max), builtins.int(limits.min)

    def __repr__(self) -> str:
        return _fields(self)


def _fields(info) -> str:
    values = ", ".join(f"{name}={getattr(info, name)}" for name in info.__slots__)
    return f"{type(info).__name__}({values})"


# PyTorch's other names. Last, because from here on the module's `bool`, `int` and `float` are dtypes.
double, half, long, short, cfloat, cdouble = float64, float16, int64, int16, complex64, complex128
float, int, bool = float32, int32, bool_
