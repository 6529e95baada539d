"""Slices, gathers and scatters in ONNX."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.convert_shape import INT_MAX, expanded, moves
from dtrain.onnx.graph import Graph
from dtrain.onnx.sizes import agree
from dtrain.onnx.trace import Step


@moves("Slice")
def slice_(graph: Graph, step: Step) -> str:
    """Slices, then the dims that integers remove, then the dims that None adds."""
    x = step.inputs[0]
    starts, ends, axes, steps = [], [], [], []
    removed, added, axis, out = [], [], 0, 0
    for k in _spelled_out(step.settings["key"], x.ndim):
        if k is None:
            added.append(out)
            out += 1
            continue
        if isinstance(k, int):
            starts.append(k)
            ends.append(k + 1 if k != -1 else INT_MAX)
            axes.append(axis)
            steps.append(1)
            removed.append(axis)
        else:
            if (k.start, k.stop, k.step) != (None, None, None):
                first, last = (INT_MAX, -INT_MAX) if k.step is not None and k.step < 0 else (0, INT_MAX)
                starts.append(k.start if k.start is not None else first)
                ends.append(k.stop if k.stop is not None else last)
                axes.append(axis)
                steps.append(1 if k.step is None else k.step)
            out += 1
        axis += 1
    name = graph.value(x)
    if axes:
        name = graph.node("Slice", name, graph.sizes(starts), graph.sizes(ends), graph.constant(axes), graph.sizes(steps))
    if removed:
        name = graph.node("Squeeze", name, graph.constant(removed))
    return graph.node("Unsqueeze", name, graph.constant(added)) if added else name


def _spelled_out(key: tuple, ndim: int) -> list[Any]:
    """The key with ... as full slices."""
    used = sum(k is not None and k is not Ellipsis for k in key)
    at = next(i for i, k in enumerate(key) if k is Ellipsis)
    return [*key[:at], *[slice(None)] * (ndim - used), *[k for k in key[at + 1 :] if k is not Ellipsis]]


def _places(step: Step, x: Tensor, indices: tuple) -> list[int]:
    """The dims of x that the index tensors of a key stand at; a mask stands at its first."""
    key = step.settings["key"]
    spans = [indices[k.i].ndim if indices[k.i].dtype is dtypes.bool else 1 for k in key if hasattr(k, "i")]
    dense = sum(spans) + sum(isinstance(k, slice) for k in key)
    places, dim, spans_left = [], 0, iter(spans)
    for k in key:
        if hasattr(k, "i"):
            places.append(dim)
            dim += next(spans_left)
        else:
            dim += x.ndim - dense if k is Ellipsis else 1
    return places


def _perm(places: list[int], ndim: int) -> list[int]:
    return [*places, *[d for d in range(ndim) if d not in places]]


def _transposed(graph: Graph, name: str, perm: list[int]) -> str:
    return name if perm == sorted(perm) else graph.node("Transpose", name, perm=perm)


def _tuples(graph: Graph, indices: tuple) -> str:
    """Index tensors, broadcast against each other, as the last dim of one tensor."""
    names = [graph.operand(i, dtypes.int64) for i in indices]
    if len(names) > 1:
        zero = graph.constant(0)
        nothing = [graph.node("Mul", n, zero) for n in names]
        total = nothing[0]
        for n in nothing[1:]:
            total = graph.node("Add", total, n)
        names = [graph.node("Add", n, total) for n in names]
    grown = [graph.node("Unsqueeze", n, graph.constant([-1])) for n in names]
    return grown[0] if len(grown) == 1 else graph.node("Concat", *grown, axis=-1)


def _mask(indices: tuple) -> bool:
    """Whether the indices are one mask. Raises UnsupportedError for masks among others."""
    masks = [i.dtype is dtypes.bool for i in indices]
    if any(masks) and len(masks) > 1:
        raise UnsupportedError("indexing with a bool mask beside other index tensors has no ONNX form here; use mask.nonzero() for its indices")
    return any(masks)


@moves("Take")
def take(graph: Graph, step: Step) -> str:
    x, *indices = step.inputs
    places = _places(step, x, tuple(indices))
    name = graph.value(x)
    if _mask(tuple(indices)):
        mask = indices[0]
        covered = list(range(places[0], places[0] + mask.ndim))
        where = graph.node("Transpose", graph.node("NonZero", graph.value(mask)), perm=[1, 0])
        taken = graph.node("GatherND", _transposed(graph, name, _perm(covered, x.ndim)), where)
        return _transposed(graph, taken, _back(1, places[0], x.ndim - mask.ndim + 1))
    if len(indices) == 1:
        return graph.node("Gather", name, graph.operand(indices[0], dtypes.int64), axis=places[0])
    taken = graph.node("GatherND", _transposed(graph, name, _perm(places, x.ndim)), _tuples(graph, tuple(indices)))
    adjacent = places == list(range(places[0], places[0] + len(places)))
    width = max(i.ndim for i in indices)
    return _transposed(graph, taken, _back(width, places[0] if adjacent else 0, x.ndim - len(places) + width))


def _back(width: int, place: int, ndim: int) -> list[int]:
    """The order of dims that moves the first ``width`` dims to ``place``."""
    rest = list(range(width, ndim))
    return [*rest[:place], *range(width), *rest[place:]]


@moves("Put")
def put(graph: Graph, step: Step) -> str:
    x, values, *indices = step.inputs
    key, accumulate = step.settings["key"], step.settings["accumulate"]
    places = _places(step, x, tuple(indices))
    if _mask(tuple(indices)):
        shape = getattr(values, "shape", ())
        if accumulate or any(n != 1 for n in shape):
            raise UnsupportedError("writing several values at a bool mask has no ONNX form here; use dtrain.where")
        mask = graph.value(indices[0])
        missing = list(range(places[0])) + list(range(places[0] + indices[0].ndim, x.ndim))
        mask = graph.node("Unsqueeze", mask, graph.constant(missing)) if missing else mask
        value = graph.operand(values, x.dtype)
        value = graph.node("Reshape", value, graph.constant([1])) if shape else value
        return graph.node("Where", mask, value, graph.value(x))
    if places != list(range(len(places))) or any(isinstance(k, slice) for k in key):
        raise UnsupportedError(f"writing at index tensors behind other dims (key {key}) has no ONNX form here; transpose so that they come first")
    where = _tuples(graph, tuple(indices))
    taken = graph.node("GatherND", graph.value(x), where)
    updates = graph.node("Expand", graph.operand(values, x.dtype), graph.node("Shape", taken))
    return graph.node("ScatterND", graph.value(x), where, updates, reduction="add" if accumulate else "none")


@moves("Gather")
def gather(graph: Graph, step: Step) -> str:
    x, index = step.inputs
    return graph.node("GatherElements", graph.value(x), graph.operand(index, dtypes.int64), axis=step.settings["dim"])


@moves("Scatter")
def scatter(graph: Graph, step: Step) -> str:
    x, index, source = step.inputs
    if isinstance(source, Tensor):
        updates = graph.operand(source, x.dtype)
        cut = [d for d, (n, m) in enumerate(zip(source.shape, index.shape)) if not agree(n, m)]
        if cut:
            ends = graph.sizes([index.shape[d] for d in cut])
            updates = graph.node("Slice", updates, graph.constant([0] * len(cut)), ends, graph.constant(cut))
    else:
        updates = expanded(graph, graph.number(source, x.dtype), (), index.shape)
    mode = "add" if step.settings["add"] else "none"
    return graph.node("ScatterElements", graph.value(x), graph.operand(index, dtypes.int64), updates, axis=step.settings["dim"], reduction=mode)


@moves("Nonzero")
def nonzero(graph: Graph, step: Step) -> str:
    return graph.node("Transpose", graph.node("NonZero", graph.value(step.inputs[0])), perm=[1, 0])


@moves("Embedding")
def embedding(graph: Graph, step: Step) -> str:
    weight, index = step.inputs
    return graph.node("Gather", graph.value(weight), graph.operand(index, dtypes.int64), axis=0)


@moves("OneHot")
def one_hot(graph: Graph, step: Step) -> str:
    index = graph.node("Unsqueeze", graph.operand(step.inputs[0], dtypes.int64), graph.constant([-1]))
    classes = graph.constant(list(range(step.settings["classes"])))
    return graph.cast(graph.node("Equal", index, classes), dtypes.int64)
