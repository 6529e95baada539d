"""CuPy's functions: parameters checked against CuPy's own, NumPy computes, CuPy's differences kept.

Half precision sums, means and products accumulate in float32 as on the GPU. Functions CuPy has no bfloat16 kernel for
refuse it. Array operands must be device arrays: NumPy arrays and lists of numbers are refused.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tests.standin import indexing, surface, ufuncs
from tests.standin.array import arrays_in, check_dtype, deliver, fresh, from_host, launch, ndarray, poison
from tests.standin.surface import BF16, checked

MOVE = """reshape ravel transpose swapaxes moveaxis rollaxis squeeze expand_dims broadcast_to broadcast_arrays flip fliplr flipud rot90
split array_split hsplit vsplit dsplit diagonal atleast_1d atleast_2d atleast_3d concatenate stack vstack hstack dstack column_stack
tile repeat roll pad diag diagflat meshgrid append copy real imag ascontiguousarray asfortranarray array_equal isclose allclose
delete choose compress""".split()
SUMS = """sum prod mean std var nansum nanprod nanmean max min amax amin nanmax nanmin argmax argmin any all count_nonzero nonzero
flatnonzero argwhere dot tensordot einsum inner outer vdot trace round around nan_to_num""".split()
NO_BF16 = """sort argsort partition argpartition lexsort searchsorted unique cumsum cumprod bincount digitize kron cross median percentile
quantile average histogram diff interp isin ptp nancumsum tri convolve select unravel_index ravel_multi_index gradient""".split()
HALVES = (BF16, np.dtype(np.float16))


def data(value: Any) -> Any:
    """Operands with NumPy data inside. Raises TypeError for a NumPy array, and for a list that mixes in other things."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: move NumPy data to the device first")
    if isinstance(value, (tuple, list)) and any(isinstance(v, ndarray) for v in value):
        loose = [v for v in value if not isinstance(v, (ndarray, tuple, list, str, type(Ellipsis)))]
        if loose and not any(isinstance(v, str) for v in value):
            raise TypeError(f"Only cupy arrays can be joined, got {type(loose[0])}")
        return type(value)(data(v) for v in value)
    return value


def delegate(name: str, bf16: bool = True, wide: bool = False, module: Any = np) -> Callable[..., Any]:
    """``cupy.<name>`` by ``numpy.<name>``; ``wide`` computes halves in float32, ``bf16`` False refuses bfloat16."""
    compute = getattr(module, name)

    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        reads = [*arrays_in(args), *arrays_in(tuple(kwargs.values()))]
        if not reads:
            raise TypeError(f"cupy.{name} takes device arrays, got {[type(a).__name__ for a in args]}")
        halves = {a.dtype for a in reads if a.dtype in HALVES}
        if BF16 in halves and not bf16:
            raise TypeError(f"CuPy has no bfloat16 kernel for {name}")
        values, named = [data(a) for a in args], {k: data(v) for k, v in kwargs.items()}
        if wide and halves:
            values = [_widened(v) for v in values]
        with np.errstate(all="ignore"):
            result = compute(*values, **named)
        if wide and halves and all(a.dtype in HALVES or a.dtype.kind in "biu" for a in reads) and not named.get("dtype"):
            result = _narrowed(result, halves.pop() if len(halves) == 1 else np.dtype(np.float32))
        if isinstance(result, np.ndarray) and not result.flags.writeable and name == "diagonal":
            result.flags.writeable = True
        if out is None:
            return deliver(result, reads)
        launch(reads, [out])
        np.copyto(out._a, result, casting="unsafe")
        return out

    return call


def delegated(module: Any, path: str, name: str) -> Callable[..., Any]:
    """``path.name`` of a submodule such as ``cupy.linalg``, which has no half precision."""
    return checked(path, name, delegate(name, bf16=False, module=module))


def _widened(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.float32) if value.dtype in HALVES else value
    return type(value)(_widened(v) for v in value) if isinstance(value, (tuple, list)) else value


def _narrowed(value: Any, half: np.dtype) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_narrowed(v, half) for v in value)
    return np.asarray(value).astype(half) if getattr(value, "dtype", None) == np.float32 else value


def array(obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0, *, blocking: bool = False) -> ndarray:
    if isinstance(obj, ndarray):
        wanted = obj.dtype if dtype is None else np.dtype(dtype)
        from tests.standin import devices

        here = obj._mem.device_id == devices.current()
        if here and not copy and wanted == obj.dtype and order in (None, "K", "A"):
            return obj if ndmin <= obj.ndim else obj[(None,) * (ndmin - obj.ndim)]
        made = obj.copy(order or "K") if not here else obj
        return made.astype(wanted, order=order or "K", copy=here and bool(copy is not False or order not in (None, "K")))
    if isinstance(obj, (list, tuple)) and any(True for _ in arrays_in(obj)):
        return stack_nested(obj) if dtype is None else stack_nested(obj).astype(dtype)
    value = np.array(obj, dtype=dtype, order=order or "K", ndmin=ndmin)
    check_dtype(value.dtype)
    return from_host(value)


def stack_nested(obj: Any) -> ndarray:
    import cupy

    return obj if isinstance(obj, ndarray) else cupy.stack([stack_nested(part) for part in obj])


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy, order or "K")


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a, order=order)


def made(compute: Callable[..., np.ndarray]) -> Callable[..., ndarray]:
    """A creation function: NumPy makes it, the current device holds it."""

    def call(*args: Any, **kwargs: Any) -> ndarray:
        out = fresh(np.array(compute(*[_plain(a) for a in args], **{k: _plain(v) for k, v in kwargs.items()})))
        launch(arrays_in((args, tuple(kwargs.values()))), [out])
        return out

    return call


def _plain(value: Any) -> Any:
    return value._a if isinstance(value, ndarray) else value


def _like(compute: Callable[..., np.ndarray]) -> Callable[..., ndarray]:
    build = made(compute)

    def call(a: Any, *args: Any, **kwargs: Any) -> ndarray:
        if not isinstance(a, ndarray):
            raise TypeError(f"expected cupy.ndarray, got {type(a)}")
        return build(a, *args, **kwargs)

    return call


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return deliver(condition._a.nonzero(), [condition])
    if x is None or y is None:
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if not isinstance(condition, ndarray):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return ufuncs.where(condition.astype(bool, copy=False), x, y)


def _triangle(compute: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """tril and triu are made with where, hence bfloat16 becomes float32."""
    return lambda m, k=0: deliver(compute(m._a, k).astype(np.float32 if m.dtype == BF16 else m.dtype), [m])


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    sources = [indices] if isinstance(indices, ndarray) else []
    return deliver(indexing.take(a._a, data(indices), axis), [a, *sources])


def _along(a: ndarray, indices: ndarray, axis: Any) -> tuple[np.ndarray, int]:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if a.ndim != indices.ndim:
        raise ValueError("`indices` and `a` must have the same number of dimensions")
    return indices._a.astype(np.int64) % max(a.shape[axis], 1), axis


def take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    index, axis = _along(a, indices, axis)
    return deliver(np.take_along_axis(a._a, index, axis), [a, indices])


def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    index, axis = _along(arr, indices, axis)
    value, sources = ufuncs.operand(values)
    launch([indices, *sources], [arr])
    np.put_along_axis(arr._a, index, value.astype(arr.dtype) if isinstance(value, np.ndarray) else value, axis)


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    if a.dtype.kind == "f":
        ends = a.dtype.type("-inf"), a.dtype.type("inf")
    else:  # booleans and bfloat16 have no end to put in, and None is refused
        ends = (np.iinfo(a.dtype).min, np.iinfo(a.dtype).max) if a.dtype.kind in "iu" else (None, None)
    return ufuncs.clip(a, ends[0] if a_min is None else a_min, ends[1] if a_max is None else a_max, out=out)


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if isinstance(src, np.ndarray):
        if src.size != 1:
            raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
        src = src.reshape(-1)[0]
    value, sources = ufuncs.operand(src)
    masks = [where] if where is not None else []
    with dst.device:
        launch([*sources, *masks], [dst], copies=True)
    np.copyto(dst._a, value, casting=casting, **({"where": where._a} if masks else {}))


def matmul(a: Any, b: Any, out: Any = None, **kwargs: Any) -> Any:
    if BF16 in (a.dtype, b.dtype) and max(a.ndim, b.ndim) > 2:
        raise TypeError("CuPy's batched matmul has no bfloat16: it takes float32, or call cuBLAS")
    if a.dtype.kind == "b" or b.dtype.kind == "b":
        raise TypeError("matmul of booleans: CuPy computes it as integers; cast first")
    return _matmul(a, b, out=out)


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    kind, index = array.__dlpack_device__()
    if kind != 2:
        raise TypeError("CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead.")
    return array.__dlpack__(stream=1, max_version=(1, 0), copy=copy).array.view()


def sorting(name: str) -> Callable[..., Any]:
    """CuPy sorts stably and takes only kind None or 'stable'."""
    compute = getattr(np, name)

    def call(a: Any, axis: Any = -1, kind: Any = None) -> Any:
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        if a.dtype == BF16:
            raise TypeError(f"CuPy has no bfloat16 kernel for {name}")
        return deliver(compute(a._a, axis=axis, kind="stable"), [a])

    return call


_matmul = delegate("matmul", wide=True)
FUNCTIONS: dict[str, Any] = {
    **{name: delegate(name) for name in MOVE},
    **{name: delegate(name, wide=True) for name in SUMS},
    **{name: delegate(name, bf16=False) for name in NO_BF16},
    **{name: made(getattr(np, name)) for name in ("zeros", "ones", "full", "arange", "linspace", "eye", "identity", "logspace")},
    **{name: _like(getattr(np, name)) for name in ("zeros_like", "ones_like", "full_like")},
    "empty_like": _like(lambda *args, **kwargs: poison(np.empty_like(*args, **kwargs))),
    "tril": _triangle(np.tril), "triu": _triangle(np.triu), "sort": sorting("sort"), "argsort": sorting("argsort"),
    "array": array, "asarray": asarray, "asanyarray": asarray, "asnumpy": asnumpy, "empty": empty, "where": where, "take": take,
    "take_along_axis": take_along_axis, "put_along_axis": put_along_axis, "from_dlpack": from_dlpack, "clip": clip, "copyto": copyto, "matmul": matmul,
}  # fmt: skip
FUNCTIONS = {name: checked("cupy", name, f) for name, f in FUNCTIONS.items() if surface.has("cupy", name)}
HOST = "result_type can_cast promote_types isscalar ndim shape size finfo iinfo broadcast_shapes min_scalar_type iscomplexobj isrealobj".split()
FUNCTIONS |= {name: getattr(np, name) for name in HOST if surface.has("cupy", name)}

METHODS = """sum prod mean std var max min argmax argmin any all cumsum cumprod dot trace round clip repeat take nonzero argsort searchsorted
diagonal conj ptp""".split()
for _name in METHODS:
    if _name in FUNCTIONS or _name in ufuncs.by_name:
        setattr(ndarray, _name, (lambda f: lambda self, *args, **kwargs: f(self, *args, **kwargs))(FUNCTIONS.get(_name) or ufuncs.by_name[_name]))


def _sort(self: ndarray, axis: int = -1, kind: Any = None) -> None:
    self[...] = FUNCTIONS["sort"](self, axis, kind)


ndarray.sort = _sort  # type: ignore[attr-defined]
