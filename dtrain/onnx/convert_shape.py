"""Shapes, indexing and creation in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.convert import converter
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

INT_MAX = np.iinfo(np.int64).max


@converter("Reshape")
def reshape(graph: Graph, step: Step) -> str:
    return graph.node("Reshape", graph.value(step.inputs[0]), graph.sizes(step.settings["to"]), allowzero=1)


@converter("Transpose")
def transpose(graph: Graph, step: Step) -> str:
    return graph.node("Transpose", graph.value(step.inputs[0]), perm=[int(a) for a in step.settings["axes"]])


@converter("Expand")
def expand(graph: Graph, step: Step) -> str:
    return graph.node("Expand", graph.value(step.inputs[0]), graph.sizes(step.settings["to"]))


@converter("Clone", "ToDevice")
def identity(graph: Graph, step: Step) -> str:
    return graph.value(step.inputs[0])


@converter("Copy")
def copy(graph: Graph, step: Step) -> str:
    target, source = step.inputs
    return graph.node("Expand", graph.operand(source, target.dtype), graph.sizes(target.shape))


@converter("Fill")
def fill(graph: Graph, step: Step) -> str:
    target = step.inputs[0]
    return graph.node("Expand", graph.constant(step.settings["value"], target.dtype.np), graph.sizes(target.shape))


@converter("Concat")
def concat(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    return graph.node("Concat", *[graph.operand(x, dtype) for x in step.inputs], axis=step.settings["axis"])


@converter("Stack")
def stack(graph: Graph, step: Step) -> str:
    axis, dtype = step.settings["axis"], step.outputs[0].dtype
    grown = [graph.node("Unsqueeze", graph.operand(x, dtype), graph.constant([axis])) for x in step.inputs]
    return graph.node("Concat", *grown, axis=axis)


@converter("Flip")
def flip(graph: Graph, step: Step) -> str:
    axes = list(step.settings["axes"])
    ends = [graph.constant([v] * len(axes)) for v in (-1, -INT_MAX)]
    return graph.node("Slice", graph.value(step.inputs[0]), *ends, graph.constant(axes), graph.constant([-1] * len(axes)))


@converter("Triangle")
def triangle(graph: Graph, step: Step) -> str:
    upper = int(step.settings["function"] == "triu")
    return graph.node("Trilu", graph.value(step.inputs[0]), graph.constant(int(step.settings["diagonal"])), upper=upper)


@converter("Slice")
def slice_(graph: Graph, step: Step) -> str:
    """Slices, then the dims that integers remove, then the dims that None adds."""
    x = step.inputs[0]
    key = _spelled_out(step.settings["key"], x.ndim)
    starts, ends, axes, steps = [], [], [], []
    removed, added, axis, out = [], [], 0, 0
    for k in key:
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
                backwards = k.step is not None and k.step < 0
                starts.append(k.start if k.start is not None else (INT_MAX if backwards else 0))
                ends.append(k.stop if k.stop is not None else (-INT_MAX if backwards else INT_MAX))
                axes.append(axis)
                steps.append(1 if k.step is None else k.step)
            out += 1
        axis += 1
    name = graph.value(x)
    if axes:
        name = graph.node("Slice", name, graph.sizes(starts), graph.sizes(ends), graph.constant(axes), graph.constant(steps))
    if removed:
        name = graph.node("Squeeze", name, graph.constant(removed))
    return graph.node("Unsqueeze", name, graph.constant(added)) if added else name


def _spelled_out(key: tuple, ndim: int) -> list[Any]:
    """The key with ... as full slices."""
    used = sum(k is not None and k is not Ellipsis for k in key)
    at = next(i for i, k in enumerate(key) if k is Ellipsis)
    return [*key[:at], *[slice(None)] * (ndim - used), *[k for k in key[at + 1 :] if k is not Ellipsis]]


@converter("Take")
def take(graph: Graph, step: Step) -> str:
    x, *indices = step.inputs
    key = step.settings["key"]
    places = [i for i, k in enumerate(key) if not (k is Ellipsis or isinstance(k, slice))]
    if len(indices) == 1 and indices[0].dtype is not dtypes.bool and not any(k is Ellipsis for k in key[: places[0]]):
        return graph.node("Gather", graph.value(x), graph.operand(indices[0], dtypes.int64), axis=places[0])
    if len(indices) == 1 and indices[0].dtype is dtypes.bool and places == [0]:
        where = graph.node("Transpose", graph.node("NonZero", graph.value(indices[0])), perm=[1, 0])
        return graph.node("GatherND", graph.value(x), where)
    raise UnsupportedError("indexing with several index tensors has no simple ONNX form; use gather, take_along_dim or index_select")


@converter("Gather")
def gather(graph: Graph, step: Step) -> str:
    x, index = step.inputs
    return graph.node("GatherElements", graph.value(x), graph.operand(index, dtypes.int64), axis=step.settings["dim"])


@converter("Created")
def created(graph: Graph, step: Step) -> str:
    """Tensors made from sizes: constants where nothing is dynamic."""
    from dtrain.onnx.sizes import is_dynamic

    out, function, args = step.outputs[0], step.settings.get("function", step.op.function), step.settings["args"]
    if not is_dynamic(list(args)):
        return graph.value(_plain(out))
    if function == "arange":
        start, end, stride = [graph.scalar(n) for n in args]
        made = graph.node("Range", start, end, stride)
        return made if out.dtype is dtypes.int64 else graph.cast(made, out.dtype)
    if function == "eye":
        raise UnsupportedError("eye() of a dynamic size has no ONNX form here")
    value = {"zeros": 0, "ones": 1, "empty": 0}.get(function, args[1] if len(args) > 1 else 0)
    return graph.node("Expand", graph.constant(value, out.dtype.np), graph.sizes(args[0]))


def _plain(out: Any) -> Any:
    from dtrain.autograd.tensor import Tensor

    return Tensor._wrap(out._array)
