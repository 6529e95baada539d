"""Shapes and views of them, which share memory wherever NumPy's do. Joining and splitting are in ``join.py``."""

from __future__ import annotations

from typing import Any, Sequence

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._shape import norm_dim, norm_dims, shape_args, unbroadcast


class View(Op):
    """Base of operations whose output shares memory with the input."""

    is_view = True
    half_as_float = False


class Reshape(View):
    """The same elements in another shape; a view where strides allow."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.to = shape

    def forward(self, xp: Any, x: Any) -> Any:
        self.source = x.shape
        return x.reshape(self.to)

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.reshape(g, self.source),)


class Transpose(View):
    """Dims in another order."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, xp: Any, x: Any) -> Any:
        return x.transpose(self.axes)

    def backward(self, xp: Any, g: Any) -> Any:
        back = [0] * len(self.axes)
        for i, a in enumerate(self.axes):
            back[a] = i
        return (xp.transpose(g, tuple(back)),)


class Expand(View):
    """Size-1 dims repeated without copying."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.to = shape

    def forward(self, xp: Any, x: Any) -> Any:
        self.source = x.shape
        return xp.broadcast_to(x, self.to)

    def backward(self, xp: Any, g: Any) -> Any:
        return (unbroadcast(xp, g, self.source),)


class Flip(Op):
    """The order of elements reversed along dims."""

    half_as_float = False

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, xp: Any, x: Any) -> Any:
        return xp.ascontiguousarray(xp.flip(x, self.axes)) if x.ndim else x.copy()

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.flip(g, self.axes),)


class Clone(Op):
    """A copy with a history."""

    half_as_float = False

    def forward(self, xp: Any, x: Any) -> Any:
        return x.copy()

    def backward(self, xp: Any, g: Any) -> Any:
        return (g,)


class Triangle(Op):
    """The lower (tril) or upper (triu) triangle, zero elsewhere."""

    def __init__(self, function: str, diagonal: int) -> None:
        self.function, self.diagonal = function, diagonal

    def forward(self, xp: Any, x: Any) -> Any:
        return getattr(xp, self.function)(x, self.diagonal)

    def backward(self, xp: Any, g: Any) -> Any:
        return (getattr(xp, self.function)(g, self.diagonal),)


def _resolve(shape: tuple[int, ...], count: int, source: Any) -> tuple[int, ...]:
    """``shape`` with its -1 filled in."""
    known = 1
    for n in shape:
        known *= n if n != -1 else 1
    if shape.count(-1) == 1 and known and count % known == 0 or -1 not in shape and known == count:
        return tuple(n if n != -1 else count // known for n in shape) if -1 in shape else shape
    raise ShapeError(f"cannot make shape {tuple(shape)} of a tensor of shape {tuple(source)} ({count} elements)")


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in ``shape`` (one -1 is inferred); a view where possible, else a copy."""
    to = shape_args(shape)
    return apply(Reshape(_resolve(to, input.numel(), input.shape)), input)


def view(input: Tensor, *shape: Any) -> Tensor:
    """As reshape, but raises ShapeError where a copy would be needed; a dtype reinterprets the bits."""
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list)):
        return Tensor._wrap(input._array.view(shape[0].np))
    out = reshape(input, *shape)
    if out._base is None and input.numel() and out._array is not input._array and not input.is_meta and not _is_view(input, out):
        raise ShapeError(
            f"view{tuple(out.shape)} of a tensor of shape {tuple(input.shape)} and strides {input.stride()} would need a copy: "
            "it was transposed, expanded or sliced. Use .reshape(), or .contiguous() first"
        )
    return out


def _is_view(a: Tensor, b: Tensor) -> bool:
    from dtrain.autograd.views import shares

    return shares(a._array, b._array)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.view(other.shape)``."""
    return view(input, tuple(other.shape))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.reshape(other.shape)``."""
    return reshape(input, tuple(other.shape))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """A view with the dims in the given order."""
    order = shape_args(dims)
    axes = tuple(norm_dim(d, input.ndim) for d in order)
    if len(axes) != input.ndim or len(set(axes)) != len(axes):
        raise ShapeError(f"permute{order} does not name each of the {input.ndim} dims of shape {tuple(input.shape)} once")
    return apply(Transpose(axes), input)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dims exchanged."""
    axes = list(range(input.ndim))
    if axes:
        a, b = norm_dim(dim0, input.ndim), norm_dim(dim1, input.ndim)
        axes[a], axes[b] = axes[b], axes[a]
    return apply(Transpose(tuple(axes)), input)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix (or a vector itself)."""
    if input.ndim > 2:
        raise ShapeError(f"t() expects at most 2 dimensions, got shape {tuple(input.shape)}; use .mT or .transpose()")
    return transpose(input, 0, 1) if input.ndim == 2 else apply(Transpose(tuple(range(input.ndim))), input)


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with dims moved to new places."""
    sources, targets = norm_dims(source, input.ndim) or (), norm_dims(destination, input.ndim) or ()
    order = [d for d in range(input.ndim) if d not in sources]
    for target, moved in sorted(zip(targets, sources)):
        order.insert(target, moved)
    return apply(Transpose(tuple(order)), input)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without the size-1 dims, all or the named ones."""
    dims = range(input.ndim) if dim is None else (norm_dims(dim, input.ndim) or ())
    to = tuple(n for d, n in enumerate(input.shape) if not (d in dims and n == 1))
    return apply(Reshape(to), input)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a size-1 dim inserted at ``dim``."""
    at = norm_dim(dim, input.ndim + 1)
    shape = tuple(input.shape)
    return apply(Reshape((*shape[:at], 1, *shape[at:])), input)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dims ``start_dim`` to ``end_dim`` made one."""
    if not input.ndim:
        return reshape(input, 1)
    start, end = norm_dim(start_dim, input.ndim), norm_dim(end_dim, input.ndim)
    if start > end:
        raise ArgumentError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    shape = input.shape
    size = 1
    for n in shape[start : end + 1]:
        size = size * n
    return apply(Reshape((*shape[:start], size, *shape[end + 1 :])), input)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dim split into several; one of them may be -1."""
    dim = norm_dim(dim, input.ndim)
    shape = input.shape
    return apply(Reshape((*shape[:dim], *_resolve(tuple(sizes), shape[dim], (shape[dim],)), *shape[dim + 1 :])), input)


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """A view with size-1 dims repeated; -1 keeps a size, new leading dims are added."""
    to = shape_args(sizes)
    lead = len(to) - input.ndim
    if lead < 0:
        raise ShapeError(f"expand{to} has fewer dims than shape {tuple(input.shape)}")
    full = tuple(input.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(to))
    for i, n in enumerate(input.shape):
        if n not in (1, full[i + lead]):
            raise ShapeError(f"cannot expand shape {tuple(input.shape)} to {full}: dim {i} is {n}, not 1")
    return apply(Expand(full), input)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.expand(other.shape)``."""
    return expand(input, tuple(other.shape))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """``input.expand(size)``."""
    return expand(input, tuple(size))


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself if it is C-contiguous, else a copy that is."""
    return input if input.is_contiguous() else clone(input)


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy; gradients flow through it."""
    return apply(Clone(), input)


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A view of ``length`` elements from ``start`` along ``dim``."""
    dim = norm_dim(dim, input.ndim)
    size = input.shape[dim]
    start = start + size if start < 0 else start
    if not 0 <= start <= start + length <= size:
        raise ArgumentError(f"narrow: start {start} and length {length} do not fit dim {dim} of size {size}")
    return input[(slice(None),) * dim + (slice(start, start + length),)]


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one slice along ``dim``, which is removed."""
    return input[(slice(None),) * norm_dim(dim, input.ndim) + (index,)]


def flip(input: Tensor, *dims: Any) -> Tensor:
    """A copy with the order of elements reversed along ``dims``."""
    return apply(Flip(norm_dims(shape_args(dims), input.ndim) or ()), input)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dims, zero elsewhere."""
    return _triangle("tril", input, diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dims, zero elsewhere."""
    return _triangle("triu", input, diagonal)


def _triangle(function: str, input: Tensor, diagonal: int) -> Tensor:
    if input.ndim < 2:
        raise ShapeError(f"{function} expects at least two dims, got shape {tuple(input.shape)}")
    return apply(Triangle(function, diagonal), input)


def ravel(input: Tensor) -> Tensor:
    """``reshape(input, -1)``."""
    return reshape(input, -1)
