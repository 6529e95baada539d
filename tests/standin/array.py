"""cupy.ndarray: holds a NumPy array and never is one; nothing turns it into one but ``get`` and its kin."""

from __future__ import annotations

from typing import Any, Iterable, Iterator

import numpy as np

from tests.standin import devices, indexing, memory, surface, ufuncs
from tests.standin.devices import launch

_ALLOWED = "?bhilqBHILQefdFD"
_NO_IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)


class Flags:
    """cupy's array flags: contiguity and ownership, nothing about writing."""

    def __init__(self, array: ndarray) -> None:
        flags = array._a.flags
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = array.base is None
        self.fnc, self.forc = flags.fnc, flags.forc

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))


def fresh(value: Any) -> ndarray:
    """A new device array of a NumPy result, which nobody else may hold."""
    value = np.asarray(value)
    check_dtype(value.dtype)
    made = object.__new__(ndarray)
    made._a, made._mem, made.base = value, memory.block(value.nbytes), None
    made._mem.buffer = value
    return made


def view_of(base: ndarray, value: np.ndarray) -> ndarray:
    """The array ``value``, a NumPy view into ``base``, in ``base``'s memory."""
    made = object.__new__(ndarray)
    made._a, made._mem, made.base = value, base._mem, base if base.base is None else base.base
    return made


def check_dtype(dtype: np.dtype) -> None:
    if dtype.char not in _ALLOWED and dtype != surface.BF16:
        raise ValueError(f"Unsupported dtype {dtype}")


def deliver(value: Any, reads: list[ndarray], writes: list[ndarray] | tuple[ndarray, ...] = ()) -> Any:
    """A NumPy result as CuPy gives it: views stay views, scalars become 0-d arrays, tuples and lists item by item.

    What is computed counts as work of the current stream that reads ``reads``; making a view is no work.
    """
    if isinstance(value, (tuple, list)):
        return type(value)(deliver(v, reads, writes) for v in value)
    if isinstance(value, np.ndarray):
        for source in (*writes, *reads):
            if value is source._a:
                return source
        for source in reads:
            if value.size and np.may_share_memory(value, source._a):
                return view_of(source, value)
    elif not isinstance(value, (np.generic, bool)):
        return value
    made = fresh(value)
    launch(reads, [made])
    return made


class ndarray:
    """An array on a numbered device."""

    __slots__ = ("_a", "_mem", "base", "__weakref__")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        dtype = np.dtype(dtype)
        check_dtype(dtype)
        if memptr is None:
            self._a = poison(np.empty(shape, dtype, order="F" if order == "F" else "C"))
            self._mem, self.base = memory.block(self._a.nbytes), None
            self._mem.buffer = self._a
            launch((), [self])
        else:
            whole = memptr.mem.buffer
            whole = whole.T if whole.flags.f_contiguous and not whole.flags.c_contiguous else whole
            self._a = np.ndarray(shape, dtype, buffer=whole.reshape(-1).view(np.uint8), offset=memptr._offset, strides=strides)
            self._mem, self.base = memptr.mem, memptr

    # What it is. -----------------------------------------------------------------------------------------------------
    shape = property(lambda self: self._a.shape, lambda self, shape: setattr(self._a, "shape", shape))
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    flags = property(Flags)
    device = property(lambda self: devices.Device(self._mem.device_id))
    T = property(lambda self: view_of(self, self._a.T))
    mT = property(lambda self: view_of(self, self._a.mT))
    real = property(lambda self: self if self.dtype.kind != "c" else view_of(self, self._a.real))
    imag = property(lambda self: fresh(np.zeros_like(self._a)) if self.dtype.kind != "c" else view_of(self, self._a.imag))

    @property
    def data(self) -> memory.MemoryPointer:
        buffer = self._mem.buffer
        offset = 0 if buffer is None or not self.size else address(self._a) - address(buffer)
        return memory.MemoryPointer(self._mem, offset)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self._a.flags.c_contiguous else self.strides
        return {"shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "strides": strides,
                "data": (self.data.ptr, False), "version": 3, "stream": 1}  # fmt: skip

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self._a)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # To the host, which waits. ---------------------------------------------------------------------------------------
    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        stream = stream or devices.get_current_stream()
        with self.device:  # where the default stream means this device's
            launch([self], (), stream, copies=True)
            if blocking:
                stream.synchronize()
        if out is None:
            return np.array(self._a, order="C" if order == "A" and not self._a.flags.fnc else order)
        if type(out) is not np.ndarray or (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError(f"{getattr(out, 'dtype', type(out))} array cannot be obtained from {self.dtype} array")
        np.copyto(out, self._a)
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"{arr.dtype} array of shape {arr.shape} cannot be set to {self.dtype} array of shape {self.shape}")
        launch((), [self], stream)
        np.copyto(self._a, arr)

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> Any:
        return from_host, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the stand-in exports to its own device only")
        return Capsule(self.copy() if copy else self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._mem.device_id

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(_NO_IMPLICIT)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        found = ufuncs.by_name.get(ufunc.__name__)
        if found is None or (method != "__call__" and not hasattr(found, method)):
            return NotImplemented
        if isinstance(kwargs.get("out"), tuple):
            kwargs["out"] = kwargs["out"][0]
        return (found if method == "__call__" else getattr(found, method))(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        name = function.__name__
        if any(not issubclass(t, ndarray) for t in types) or function.__module__ != "numpy" or not hasattr(cupy, name):
            return NotImplemented
        return getattr(cupy, name)(*args, **kwargs)

    # Parts. ----------------------------------------------------------------------------------------------------------
    def __getitem__(self, index: Any) -> ndarray:
        index, others = indexing.prepare(index)
        return deliver(indexing.take_part(self._a, index), [self, *others])

    def __setitem__(self, index: Any, value: Any) -> None:
        value, sources = ufuncs.operand(value)
        index, others = indexing.prepare(index)
        launch([*sources, *others], [self])
        indexing.put_part(self._a, index, value)

    def _scatter_op(self, index: Any, value: Any, op: str) -> None:
        value, sources = ufuncs.operand(value)
        index, others = indexing.prepare(index)
        launch([self, *sources, *others], [self])
        indexing.scatter(self._a, index, value, op)

    # Copies and views. -----------------------------------------------------------------------------------------------
    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: Any = True) -> ndarray:
        check_dtype(np.dtype(dtype))
        if not copy and np.dtype(dtype) == self.dtype and order in "KA":
            return self
        with np.errstate(all="ignore"):
            return deliver(np.array(self._a.astype(dtype, order=order, copy=True)), [self])

    def copy(self, order: str = "C") -> ndarray:
        contiguous = self._a.flags.c_contiguous or self._a.flags.f_contiguous
        elsewhere = self._mem.device_id != devices.current()
        if elsewhere and not contiguous and order != "C":
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        made = fresh(self._a.copy(order=order))
        launch([self], [made], copies=True)
        return made

    def view(self, dtype: Any = None) -> ndarray:
        return view_of(self, self._a.view() if dtype is None else self._a.view(dtype))

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        return deliver(self._a.reshape(*shape, order=order), [self])

    def transpose(self, *axes: Any) -> ndarray:
        return view_of(self, self._a.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return view_of(self, self._a.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        return view_of(self, self._a.squeeze(axis))

    def ravel(self, order: str = "C") -> ndarray:
        return deliver(self._a.ravel(order), [self])

    def flatten(self, order: str = "C") -> ndarray:
        return deliver(self._a.flatten(order), [self])

    def fill(self, value: Any) -> None:
        value, sources = ufuncs.operand(value)
        launch(sources, [self])
        self._a.fill(value)


class Capsule:
    """What ``__dlpack__`` hands out; only the stand-in's own ``from_dlpack`` can open it."""

    def __init__(self, array: ndarray) -> None:
        self.array = array


def poison(value: np.ndarray) -> np.ndarray:
    """Uninitialised memory as NaN or -1, so that nobody relies on zeros."""
    value.fill(True if value.dtype.kind == "b" else np.iinfo(value.dtype).max if value.dtype.kind in "iu" else np.nan)
    return value


def address(value: np.ndarray) -> int:
    return int(value.__array_interface__["data"][0])


def from_host(value: Any) -> ndarray:
    """A device array of NumPy data, on the current device."""
    made = fresh(np.array(value, order="K"))
    launch((), [made])
    return made


def arrays_in(value: Any) -> Iterable[ndarray]:
    """The device arrays among operands, inside lists and tuples too."""
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from arrays_in(part)


def _operators() -> None:
    """``+`` and its kin, their reflections and in-place forms, through the same ufuncs as the functions."""
    names = {
        "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
        "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift",
        "rshift": "right_shift", "lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal", "gt": "greater", "ge": "greater_equal",
    }  # fmt: skip
    for short, name in names.items():
        setattr(ndarray, f"__{short}__", _binary(name))
        if short not in ("lt", "le", "eq", "ne", "gt", "ge"):
            setattr(ndarray, f"__r{short}__", _binary(name, reflected=True))
        if short in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
            setattr(ndarray, f"__i{short}__", _in_place(name))
    for short, name in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{short}__", lambda self, name=name: ufuncs.by_name[name](self))


def _binary(name: str, reflected: bool = False) -> Any:
    def operator(self: ndarray, other: Any) -> Any:
        if getattr(type(other), "__array_ufunc__", self) is None:
            return NotImplemented
        return ufuncs.by_name[name](other, self) if reflected else ufuncs.by_name[name](self, other)

    return operator


def _in_place(name: str) -> Any:
    return lambda self, other: ufuncs.by_name[name](self, other, out=self)


_operators()
ndarray.__module__ = "cupy"
