"""Indexing: slices as views, index arrays and masks as gathers, and their assignments."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from dtrain.logs import warn_once
from dtrain.ops._shape import broadcast_shapes, norm_dim
from dtrain.ops.shape import View, expand


class Slot:
    """Stands in an index for the i-th index tensor."""

    def __init__(self, i: int) -> None:
        self.i = i

    def __repr__(self) -> str:
        return f"index{self.i}"


class Slice(View):
    """x[key] for integers, slices, None and ...: a view."""

    def __init__(self, key: tuple) -> None:
        # A trailing ... keeps the result an array that shares memory, where integers for all dims would give a scalar.
        self.key = key if any(k is Ellipsis for k in key) else (*key, Ellipsis)

    def forward(self, xp: Any, x: Any) -> Any:
        self.source = x.shape
        return x[self.key]

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.run(Unslice(self.key, self.source), g),)


class Unslice(Op):
    """Zeros of a shape, with x at a slice."""

    half_as_float = False

    def __init__(self, key: tuple, shape: tuple) -> None:
        self.key, self.shape = key, shape

    def forward(self, xp: Any, x: Any) -> Any:
        out = xp.zeros(self.shape, x.dtype)
        out[self.key] = x
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.run(Slice(self.key), g),)


class Take(Op):
    """x[key] with index arrays or masks in it."""

    half_as_float = False

    def __init__(self, key: tuple) -> None:
        self.key = key

    def forward(self, xp: Any, x: Any, *indices: Any) -> Any:
        self.source = x.shape
        self.saved = indices
        key = _fill(self.key, indices)
        check_ranges(xp, x.shape, key)
        return x[key]

    def backward(self, xp: Any, g: Any) -> Any:
        indices = self.unpack(xp)
        return (xp.run(PutAdd(self.key, self.source), g, *indices), *[None] * len(indices))


class PutAdd(Op):
    """Zeros of a shape, with x added at index arrays (repeated indices add up)."""

    half_as_float = False

    def __init__(self, key: tuple, shape: tuple) -> None:
        self.key, self.shape = key, shape

    def forward(self, xp: Any, x: Any, *indices: Any) -> Any:
        self.saved = indices
        key = _fill(self.key, indices)
        out = xp.zeros(self.shape, x.dtype)
        if all(getattr(k, "dtype", None) is None or k.dtype == bool for k in key):
            out[key] = x
        else:
            xp.scatter_add(out, key, x)
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        indices = self.unpack(xp)
        return (xp.run(Take(self.key), g, *indices), *[None] * len(indices))


class Put(Op):
    """x with values at index arrays replaced (or, accumulating, added to)."""

    half_as_float = False

    def __init__(self, key: tuple, accumulate: bool) -> None:
        self.key, self.accumulate = key, accumulate

    def forward(self, xp: Any, x: Any, values: Any, *indices: Any) -> Any:
        self.saved = indices
        self.shape = getattr(values, "shape", ())
        key = _fill(self.key, indices)
        check_ranges(xp, x.shape, key)
        out = x.copy()
        while self.shape and values.ndim and values.shape[0] == 1:  # leading dims of 1 broadcast anyway, and masks take none
            values = values[0]
        if self.accumulate:
            xp.scatter_add(out, key, values)
        else:
            out[key] = values
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        from dtrain.ops._shape import unbroadcast

        indices = self.unpack(xp)
        gx = gv = None
        if self.needs(0):
            gx = g if self.accumulate else xp.run(ClearAt(self.key), g, *indices)
        if self.needs(1):
            gv = unbroadcast(xp, xp.run(Take(self.key), g, *indices), self.shape)
        return (gx, gv, *[None] * len(indices))


class ClearAt(Op):
    """x with zeros at index arrays."""

    half_as_float = False

    def __init__(self, key: tuple) -> None:
        self.key = key

    def forward(self, xp: Any, x: Any, *indices: Any) -> Any:
        self.saved = indices
        out = x.copy()
        out[_fill(self.key, indices)] = 0
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        indices = self.unpack(xp)
        return (xp.run(ClearAt(self.key), g, *indices), *[None] * len(indices))


def _fill(key: tuple, indices: tuple) -> tuple:
    return tuple(indices[k.i] if isinstance(k, Slot) else k for k in key)


def check_ranges(xp: Any, shape: tuple, key: tuple) -> None:
    """Raise IndexRangeError naming the value, its position and the range, on every device."""
    dim = 0
    dense = [k for k in key if k is not None and k is not Ellipsis]
    used = sum(getattr(k, "ndim", 1) if getattr(k, "dtype", None) == bool else 1 for k in dense)
    for k in key:
        if k is None:
            continue
        if k is Ellipsis:
            dim += len(shape) - used
        elif getattr(k, "dtype", None) is None:
            dim += 1
        elif k.dtype == bool:
            if tuple(k.shape) != tuple(shape[dim : dim + k.ndim]):
                raise ShapeError(f"mask of shape {tuple(k.shape)} does not fit shape {tuple(shape)} at dim {dim}")
            dim += k.ndim
        else:
            if dim >= len(shape):
                raise IndexRangeError(f"too many indices for a tensor of shape {tuple(shape)}")
            check_range(xp, k, shape[dim], f"index for dim {dim}", negative=True)
            dim += 1


def check_range(xp: Any, indices: Any, size: int, what: str, negative: bool = False) -> None:
    """Raise IndexRangeError if any of ``indices`` lies outside [0, size), or [-size, size) when negative ones count."""
    if not indices.size or xp.name == "meta":
        return
    low, high = int(xp.min(indices)), int(xp.max(indices))
    least = -size if negative else 0
    if low >= least and high < size:
        return
    bad = low if low < least else high
    position = tuple(int(n[0]) for n in xp.nonzero(indices == bad)) if indices.ndim else ()
    raise IndexRangeError(f"{what} is {bad} at position {position}, outside the range {least} to {size - 1}")


def _parse(x: Tensor, key: Any) -> tuple[tuple, list[Tensor]]:
    """The key with Slots for its index tensors, and those tensors on the right device."""
    items = key if isinstance(key, tuple) else (key,)
    out, tensors = [], []
    for item in items:
        if isinstance(item, Tensor) and item.ndim == 0 and item._array.dtype.kind == "i" and not item.is_meta:
            out.append(int(item.item()))
        elif item is None or item is Ellipsis or isinstance(item, slice):
            out.append(_plain_slice(item))
        elif isinstance(item, (bool, np.bool_, Tensor, list, np.ndarray)) or hasattr(item, "__cuda_array_interface__"):
            out.append(Slot(len(tensors)))
            tensors.append(_index_tensor(item, x))
        elif hasattr(item, "__index__"):
            out.append(item if isinstance(item, int) else item.__index__())
        else:
            raise IndexRangeError(
                f"cannot index a tensor with {type(item).__name__} {item!r}; expected int, slice, None, ..., or a bool or integer tensor, array or list"
            )
    return tuple(out), tensors


def _plain_slice(item: Any) -> Any:
    """Slices whose ends are tensors or NumPy integers, with ends of plain int."""
    if not isinstance(item, slice):
        return item
    ends = [e if e is None or isinstance(e, int) else e.__index__() for e in (item.start, item.stop, item.step)]
    return slice(*ends)


def _index_tensor(item: Any, x: Tensor) -> Tensor:
    index = item if isinstance(item, Tensor) else Tensor._wrap(np.asarray(item) if not hasattr(item, "__cuda_array_interface__") else item)
    if index._array.size == 0 and index._array.dtype.kind == "f":
        index = index.to(dtypes.int64)  # type: ignore[attr-defined]
    if index.dtype is dtypes.uint8:
        warn_once("uint8-index", "indexing with uint8 means a mask, as in PyTorch; use .bool() for a mask, .long() for positions")
        index = index.to(dtypes.bool)  # type: ignore[attr-defined]
    if index._array.dtype.kind not in "iub":
        raise DtypeError(f"index tensors must be integer or bool, got {index.dtype}")
    return index if type(index._array) is type(x._array) else index.to(x.device)  # type: ignore[attr-defined]


def getitem(input: Tensor, key: Any) -> Tensor:
    """``input[key]``: a view for ints, slices, None and ...; a copy for index arrays and masks."""
    parsed, tensors = _parse(input, key)
    if not tensors:
        return apply(Slice(parsed), input)
    view, rest = _basic_first(input, parsed, tensors)
    return apply(Take(rest), view, *tensors)


def _basic_first(x: Tensor, key: tuple, tensors: list[Tensor]) -> tuple[Tensor, tuple]:
    """The view that the integers, slices and None of a mixed key make, and the key of index tensors that remains.

    NumPy would treat an integer beside an index array as an index array too, and move dims to the front; PyTorch does not.
    """
    basic: list[Any] = []
    rest: list[Any] = []
    for k in key:
        if isinstance(k, Slot):
            index = tensors[k.i]._array
            basic += [slice(None)] * index.ndim if index.dtype == bool else [slice(None)]
            rest.append(k)
        elif k is Ellipsis:
            basic.append(k)
            rest.append(k)
        else:
            basic.append(k)
            if not isinstance(k, int):
                rest.append(slice(None))
    plain = all(k is Ellipsis or isinstance(k, slice) and k == slice(None) for k in basic)
    view = x if plain else apply(Slice(tuple(basic)), x)
    spans = [_span(tensors[k.i]) if isinstance(k, Slot) else 1 for k in rest if k is not Ellipsis]
    if sum(spans) == view.ndim:  # an empty ... would part index tensors that stand side by side
        rest = [k for k in rest if k is not Ellipsis]
    return view, tuple(rest)


def _span(index: Tensor) -> int:
    """How many dims an index tensor takes the place of."""
    return index.ndim if index.dtype is dtypes.bool else 1


def setitem(input: Tensor, key: Any, value: Any) -> None:
    """``input[key] = value``, broadcasting ``value``; autograd follows."""
    parsed, tensors = _parse(input, key)
    if not isinstance(value, Tensor):
        value = Tensor._wrap(type_of(input).asarray(value, dtype=input._array.dtype))
    if tensors:
        view, rest = _basic_first(input, parsed, tensors)
        apply_(Put(rest, False), view, value.to(input.dtype) if value.dtype is not input.dtype else value, *tensors)  # type: ignore[attr-defined]
        return
    target = apply(Slice(parsed), input)
    while value.ndim > target.ndim and value.shape[0] == 1:
        value = value[0]
    target.copy_(value)  # type: ignore[attr-defined]


def type_of(x: Tensor) -> Any:
    from dtrain.backend import namespace

    return namespace.of(x._array)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of ``input`` along ``dim`` at the 1-D ``index``."""
    dim = norm_dim(dim, input.ndim)
    index = _vector("index_select", index)
    check_range(type_of(index), index._array, input.shape[dim], f"index_select index for dim {dim}")
    return getitem(input, (slice(None),) * dim + (index,))


def _vector(name: str, index: Tensor) -> Tensor:
    """A 1-D integer index; a 0-dim one counts as one element."""
    if index.ndim > 1 or index._array.dtype.kind not in "iu":
        raise IndexRangeError(f"{name} expects a 1-D integer index, got shape {tuple(index.shape)} of {index.dtype}")
    return index if index.ndim else index.reshape(1)  # type: ignore[attr-defined]


def check_same_dtype(name: str, input: Tensor, source: Any) -> None:
    """Raise DtypeError for values that writing would have to convert."""
    if isinstance(source, Tensor) and source._array.dtype != input._array.dtype:
        raise DtypeError(f"{name} expects values of {input.dtype} like its input, got {source.dtype}; convert with .to({input.dtype})")


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``values`` at ``indices`` (a tuple of tensors) written, or added."""
    check_same_dtype("index_put", input, values)
    parsed, tensors = _parse(input, tuple(indices))
    return apply(Put(parsed, accumulate), input, values, *tensors)


def index_put_(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """index_put in place."""
    check_same_dtype("index_put_", input, values)
    parsed, tensors = _parse(input, tuple(indices))
    return apply_(Put(parsed, accumulate), input, values, *tensors)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """``input`` with ``alpha * source`` added at the slices ``index`` along ``dim``."""
    dim = norm_dim(dim, input.ndim)
    index = _vector("index_add", index)
    check_same_dtype("index_add", input, source)
    check_range(type_of(index), index._array, input.shape[dim], f"index_add index for dim {dim}")
    expected = (*input.shape[:dim], index.shape[0], *input.shape[dim + 1 :])
    if tuple(source.shape) != expected:
        raise ShapeError(f"index_add expects a source of shape {expected}, got {tuple(source.shape)}")
    parsed, tensors = _parse(input, (slice(None),) * dim + (index,))
    return apply(Put(parsed, True), input, source if alpha == 1 else source * alpha, *tensors)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where ``mask`` (bool, broadcastable) holds, else ``input``."""
    from dtrain.ops.elementwise import where

    if mask._array.dtype != bool:
        raise DtypeError(f"masked_fill expects a bool mask, got {mask.dtype}; compare first, as in x == 0")
    out = where(mask, value, input)
    return out if out.dtype is input.dtype else out.to(input.dtype)  # type: ignore[attr-defined]


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where ``mask`` holds, 1-D."""
    shape = broadcast_shapes(input.shape, mask.shape)
    return getitem(expand(input, shape), expand(mask, shape))


def repeat_interleave_tensor(input: Tensor, repeats: Any, dim: int | None) -> Tensor:
    """Each slice repeated its own number of times; ``repeats`` is a 1-D integer tensor."""
    if dim is None:
        input, dim = input.reshape(-1), 0  # type: ignore[attr-defined]
    dim = norm_dim(dim, input.ndim)
    counts = repeats.reshape(-1).tolist()
    size = input.shape[dim]
    if len(counts) not in (1, size):
        raise ShapeError(f"repeat_interleave: {len(counts)} counts for dim {dim} of size {size}; expected one, or one each")
    if min(counts, default=0) < 0:
        raise ArgumentError(f"repeat_interleave: counts cannot be negative, got {min(counts)}")
    order = np.repeat(np.arange(size), counts if len(counts) == size else counts[0])
    return index_select(input, dim, Tensor._wrap(type_of(repeats).asarray(order)))
