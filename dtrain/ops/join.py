"""Tensors joined, split and repeated."""

from __future__ import annotations

from typing import Any, Sequence

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops._shape import norm_dim, shape_args
from dtrain.ops.shape import expand, narrow, reshape, unsqueeze


class Concat(Op):
    """Tensors one after another along a dim."""

    promotes = True

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, xp: Any, *xs: Any) -> Any:
        self.sizes = [x.shape[self.axis] for x in xs]
        return xp.concatenate(xs, axis=self.axis)

    def backward(self, xp: Any, g: Any) -> Any:
        out, start = [], 0
        lead = (slice(None),) * self.axis
        for i, size in enumerate(self.sizes):
            out.append(g[(*lead, slice(start, start + size))] if self.needs(i) else None)
            start += size
        return tuple(out)


class Stack(Op):
    """Tensors of one shape along a new dim."""

    promotes = True

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, xp: Any, *xs: Any) -> Any:
        return xp.stack(xs, axis=self.axis)

    def backward(self, xp: Any, g: Any) -> Any:
        lead = (slice(None),) * self.axis
        return tuple(g[(*lead, i)] if self.needs(i) else None for i in range(len(self.edges)))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dim."""
    tensors = tuple(tensors)
    if not tensors:
        raise ArgumentError("cat expects at least one tensor, got an empty list")
    if any(x.ndim != 1 for x in tensors):  # empty vectors join anything, as in PyTorch
        tensors = tuple(x for x in tensors if x._array.shape != (0,))
    if not tensors[0].ndim:
        raise ShapeError("cat cannot join 0-dim tensors; use stack")
    axis = norm_dim(dim, tensors[0].ndim)
    first = tensors[0].shape
    for i, x in enumerate(tensors):
        if x.ndim != len(first) or any(a != b for d, (a, b) in enumerate(zip(first, x.shape)) if d != axis):
            raise ShapeError(f"cat along dim {axis}: tensor {i} has shape {tuple(x.shape)}, tensor 0 has {tuple(first)}; only dim {axis} may differ")
    return apply(Concat(axis), *tensors)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of equal shape along a new dim."""
    tensors = tuple(tensors)
    if not tensors:
        raise ArgumentError("stack expects at least one tensor, got an empty list")
    for i, x in enumerate(tensors):
        if x.shape != tensors[0].shape:
            raise ShapeError(f"stack: tensor {i} has shape {tuple(x.shape)}, tensor 0 has {tuple(tensors[0].shape)}; all must be equal")
    return apply(Stack(norm_dim(dim, tensors[0].ndim + 1)), *tensors)


def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces along ``dim``: of equal size (the last may be smaller) or of the given sizes."""
    dim = norm_dim(dim, input.ndim)
    size = input.shape[dim]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step <= 0:
            raise ArgumentError(f"split expects a positive size, got {step}")
        count = max(len(range(0, size, step)), 1)
        sizes = [step] * (count - 1) + [size - (count - 1) * step]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != size:
            raise ShapeError(f"split sizes {sizes} sum to {sum(sizes)}, but dim {dim} has size {size}")
    out, start = [], 0
    for n in sizes:
        out.append(narrow(input, dim, start, n))
        start += n
    return tuple(out)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size along ``dim`` (the last may be smaller)."""
    if chunks < 1:
        raise ArgumentError(f"chunk expects at least 1 chunk, got {chunks}")
    size = input.shape[norm_dim(dim, input.ndim)]
    return split(input, max(-(-size // chunks), 1), dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the slices along ``dim``, which is removed."""
    dim = norm_dim(dim, input.ndim)
    return tuple(input[(slice(None),) * dim + (i,)] for i in range(input.shape[dim]))


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along ``dims``, those that leave the end come back at the front."""
    if dims is None:
        return reshape(roll(reshape(input, -1), shifts, 0), tuple(input.shape))
    shifts, dims = [(v,) if isinstance(v, int) else tuple(v) for v in (shifts, dims)]
    if len(shifts) != len(dims):
        raise ArgumentError(f"roll: {len(shifts)} shifts for {len(dims)} dims; expected one shift a dim")
    for shift, dim in zip(shifts, dims):
        size = input.shape[dim]
        cut = -shift % size if size else 0
        if cut:
            input = cat([narrow(input, dim, cut, size - cut), narrow(input, dim, 0, cut)], dim)
    return input


def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """A copy tiled ``sizes`` times along each dim; more sizes than dims add leading dims."""
    counts = shape_args(sizes)
    if len(counts) < input.ndim:
        raise ShapeError(f"repeat{counts} has fewer counts than the {input.ndim} dims of shape {tuple(input.shape)}")
    shape = (1,) * (len(counts) - input.ndim) + tuple(input.shape)
    spread = [n for pair in zip(counts, shape) for n in pair]
    whole = reshape(input, [n for s in shape for n in (1, s)])
    return reshape(expand(whole, spread), [c * s for c, s in zip(counts, shape)])


def tile(input: Tensor, *dims: Any) -> Tensor:
    """As repeat; fewer counts than dims apply to the last dims."""
    counts = shape_args(dims)
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


def repeat_interleave(input: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element repeated ``repeats`` times (an int) along ``dim``."""
    if not isinstance(repeats, int):
        from dtrain.ops import index

        return index.repeat_interleave_tensor(input, repeats, dim)
    if dim is None:
        input, dim = reshape(input, -1), 0
    dim = norm_dim(dim, input.ndim)
    shape = list(input.shape)
    spread = expand(unsqueeze(input, dim + 1), shape[: dim + 1] + [repeats] + shape[dim + 1 :])
    shape[dim] *= repeats
    return reshape(spread, shape)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-D tensors, as views; indexing "ij" or "xy"."""
    parts = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
    if indexing not in ("ij", "xy"):
        raise ArgumentError(f"meshgrid indexing must be 'ij' or 'xy', got {indexing!r}")
    swap = indexing == "xy" and len(parts) > 1
    if swap:
        parts[0], parts[1] = parts[1], parts[0]
    shape = [p.numel() for p in parts]
    grids = [expand(reshape(p, [n if i == d else 1 for i, n in enumerate(shape)]), shape) for d, p in enumerate(parts)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)
