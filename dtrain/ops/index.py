"""Indexing: slices as views, index arrays and masks as gathers, and their assignments."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.dispatch import apply, apply_
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import DtypeError, IndexRangeError, ShapeError
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
        if isinstance(item, Tensor) and item.ndim == 0 and item._array.dtype.kind in "iu" and not item.is_meta:
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
    return (x if plain else apply(Slice(tuple(basic)), x)), tuple(rest)


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


def _along(x: Any, dim: int, index: Any) -> tuple:
    """An index key that takes ``index`` along ``dim`` and keeps the position in the others."""
    out = []
    for d, n in enumerate(index.shape):
        if d == dim:
            out.append(index)
        else:
            shape = [1] * index.ndim
            shape[d] = n
            out.append(np.arange(n).reshape(shape))
    return tuple(out)


class Gather(Op):
    """y[i][j] = x[index[i][j]][j] for dim 0, and so on."""

    half_as_float = False

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.source = x.shape
        self.saved = (index,)
        return x[_position(xp, self.dim, index)] if x.shape != index.shape else xp.take_along_axis(x, index, self.dim)

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(ScatterAddZeros(self.dim, self.source), g, index), None


class ScatterAddZeros(Op):
    """Zeros of a shape with x added at index along dim: the gradient of gather."""

    half_as_float = False

    def __init__(self, dim: int, shape: tuple) -> None:
        self.dim, self.shape = dim, shape

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.saved = (index,)
        out = xp.zeros(self.shape, x.dtype)
        xp.scatter_add(out, _position(xp, self.dim, index), x)
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(Gather(self.dim), g, index), None


class Scatter(Op):
    """x with src written (or added) at index along dim."""

    half_as_float = False

    def __init__(self, dim: int, add: bool) -> None:
        self.dim, self.add = dim, add

    def forward(self, xp: Any, x: Any, index: Any, src: Any) -> Any:
        self.saved = (index,)
        self.trim = tuple(slice(0, n) for n in index.shape)
        self.src_shape = getattr(src, "shape", None)
        out = x.copy()
        position = _position(xp, self.dim, index)
        values = src[self.trim] if self.src_shape is not None else src
        if self.add:
            xp.scatter_add(out, position, values)
        else:
            out[position] = values
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        gx = gs = None
        if self.needs(0):
            gx = g if self.add else xp.run(ScatterZero(self.dim), g, index)
        if self.needs(2):
            gs = xp.run(Gather(self.dim), g, index)
            if tuple(self.src_shape) != tuple(gs.shape):
                gs = xp.run(Unslice(self.trim, self.src_shape), gs)
        return gx, None, gs


class ScatterZero(Op):
    """x with zeros at index along dim."""

    half_as_float = False

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, xp: Any, x: Any, index: Any) -> Any:
        self.saved = (index,)
        out = x.copy()
        out[_position(xp, self.dim, index)] = 0
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        (index,) = self.unpack(xp)
        return xp.run(ScatterZero(self.dim), g, index), None


def _position(xp: Any, dim: int, index: Any) -> tuple:
    shape = index.shape
    return tuple(
        index if d == dim else xp.reshape(xp.arange(n), tuple(n if k == d else 1 for k in range(len(shape)))) for d, n in enumerate(shape)
    )


def _check_index(input: Tensor, dim: int, index: Tensor, name: str) -> int:
    dim = norm_dim(dim, input.ndim)
    if index._array.dtype.kind not in "iu":
        raise DtypeError(f"{name} expects an integer index, got {index.dtype}")
    if index.ndim != input.ndim:
        raise ShapeError(f"{name} expects an index with {input.ndim} dims like input {tuple(input.shape)}, got shape {tuple(index.shape)}")
    check_range(type_of(index), index._array, input.shape[dim], f"{name} index for dim {dim}")
    return dim


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Values of ``input`` along ``dim`` at ``index`` (same number of dims)."""
    if not input.ndim:
        return input.clone()  # type: ignore[attr-defined]
    dim = _check_index(input, dim, index, "gather")
    return apply(Gather(dim), input, index)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Gather with the other dims broadcast; without ``dim``, from the flattened input."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))  # type: ignore[attr-defined]
    dim = norm_dim(dim, input.ndim)
    shape = broadcast_shapes(*[tuple(1 if d == dim else n for d, n in enumerate(t.shape)) for t in (input, indices)])
    grow = lambda t: expand(t, tuple(t.shape[d] if d == dim else n for d, n in enumerate(shape)))  # noqa: E731
    return gather(grow(input), dim, grow(indices))


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """``input`` with ``src`` (a tensor or number) written at ``index`` along ``dim``."""
    dim = _check_index(input, dim, index, "scatter")
    return apply(Scatter(dim, False), input, index, value if src is None else src)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with ``src`` added at ``index`` along ``dim``; repeated indices add up."""
    dim = _check_index(input, dim, index, "scatter_add")
    return apply(Scatter(dim, True), input, index, src)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of ``input`` along ``dim`` at the 1-D ``index``."""
    dim = norm_dim(dim, input.ndim)
    check_range(type_of(index), index._array, input.shape[dim], f"index_select index for dim {dim}")
    return getitem(input, (slice(None),) * dim + (index,))


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``values`` at ``indices`` (a tuple of tensors) written, or added."""
    parsed, tensors = _parse(input, tuple(indices))
    return apply(Put(parsed, accumulate), input, values, *tensors)


def index_put_(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """index_put in place."""
    parsed, tensors = _parse(input, tuple(indices))
    return apply_(Put(parsed, accumulate), input, values, *tensors)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """``input`` with ``alpha * source`` added at the slices ``index`` along ``dim``."""
    dim = norm_dim(dim, input.ndim)
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


class Nonzero(Op):
    """The indices of nonzero elements, (count, ndim), int64."""

    differentiable = False

    def forward(self, xp: Any, x: Any) -> Any:
        found = xp.nonzero(x if x.ndim else x.reshape(1))
        out = xp.stack(found, axis=1).astype("int64") if found else xp.zeros((0, 0), "int64")
        return out if x.ndim else out[:, :0]


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Indices of nonzero elements: (count, ndim), or a tuple of 1-D tensors, one a dim."""
    found = apply(Nonzero(), input)
    return tuple(found.unbind(1)) if as_tuple else found  # type: ignore[attr-defined]


class Argsort(Op):
    """The positions that sort along a dim; int64."""

    differentiable = False

    def __init__(self, axis: int, descending: bool) -> None:
        self.axis, self.descending = axis, descending

    def forward(self, xp: Any, x: Any) -> Any:
        if not self.descending:
            return _stable(xp, x, self.axis).astype("int64")
        # Sorting the reversed array and reversing keeps equal elements in their order.
        order = xp.flip(_stable(xp, xp.flip(x, self.axis), self.axis), self.axis)
        return (x.shape[self.axis] - 1 - order).astype("int64")


def _stable(xp: Any, x: Any, axis: int) -> Any:
    return xp.argsort(x, axis=axis, kind="stable")


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along ``dim``; int64. Equal elements keep their order."""
    if not input.ndim:
        return Tensor._wrap(type_of(input).zeros((), "int64"))
    return apply(Argsort(norm_dim(dim, input.ndim), descending), input)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """``(values, indices)`` sorted along ``dim``."""
    from dtrain.ops.reduce import MaxMin

    indices = argsort(input, dim, descending, stable)
    return MaxMin(gather(input, dim, indices), indices)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``(values, indices)`` of the ``k`` largest (or smallest) elements along ``dim``."""
    from dtrain.ops.reduce import MaxMin
    from dtrain.ops.shape import narrow

    dim = norm_dim(dim, input.ndim)
    size = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= size:
        raise IndexRangeError(f"topk: k is {k}, outside the range 0 to {size} of dim {dim}")
    indices = narrow(argsort(input, dim, largest), dim, 0, k).contiguous() if input.ndim else argsort(input)  # type: ignore[attr-defined]
    return MaxMin(gather(input, dim, indices), indices)


def repeat_interleave_tensor(input: Tensor, repeats: Any, dim: int | None) -> Tensor:
    """Each slice repeated its own number of times; ``repeats`` is a 1-D integer tensor."""
    if dim is None:
        input, dim = input.reshape(-1), 0  # type: ignore[attr-defined]
    counts = repeats._array
    xp = type_of(repeats)
    if int(counts.size) not in (1, input.shape[dim]):
        raise ShapeError(f"repeat_interleave: {counts.size} counts for dim {dim} of size {input.shape[dim]}")
    order = np.repeat(np.arange(input.shape[dim]), counts.tolist() if counts.size > 1 else int(counts))
    return index_select(input, dim, Tensor._wrap(xp.asarray(order)))
