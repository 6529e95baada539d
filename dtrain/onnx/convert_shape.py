"""Shapes, joining and creation in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes
from dtrain.onnx.convert import converter
from dtrain.onnx.graph import Graph, on_host
from dtrain.onnx.sizes import Dim, is_dynamic, same
from dtrain.onnx.trace import Step

INT_MAX = np.iinfo(np.int64).max


def moves(*names: str) -> Any:
    return converter(*names, computes=False)


@moves("Reshape")
def reshape(graph: Graph, step: Step) -> str:
    x, to = step.inputs[0], step.settings["to"]
    name, source = graph.value(x), x.shape
    if _same([n for n in source if not _is_one(n)], [n for n in to if not _is_one(n)]):
        gone, new = [[i for i, n in enumerate(shape) if _is_one(n)] for shape in (source, to)]
        if gone == new:
            return name
        name = graph.node("Squeeze", name, graph.constant(gone)) if gone else name
        return graph.node("Unsqueeze", name, graph.constant(new)) if new else name
    if sum(isinstance(n, Dim) for n in to) == 1 and 0 not in to:
        return graph.node("Reshape", name, graph.constant([-1 if isinstance(n, Dim) else n for n in to]))
    return graph.node("Reshape", name, graph.sizes(to), allowzero=1)


def _is_one(n: int) -> bool:
    return type(n) is int and n == 1


def _same(a: list, b: list) -> bool:
    """Whether two shapes are equal at all sizes."""
    return len(a) == len(b) and all(same(m, n) for m, n in zip(a, b))


@moves("Transpose")
def transpose(graph: Graph, step: Step) -> str:
    return graph.node("Transpose", graph.value(step.inputs[0]), perm=[int(a) for a in step.settings["axes"]])


@moves("Expand")
def expand(graph: Graph, step: Step) -> str:
    return expanded(graph, graph.value(step.inputs[0]), step.inputs[0].shape, step.settings["to"])


def expanded(graph: Graph, name: str, source: tuple, to: tuple) -> str:
    """A value of shape ``source`` broadcast to ``to``."""
    padded = (1,) * (len(to) - len(source)) + tuple(source)
    sizes = [n if _is_one(m) else 1 for m, n in zip(padded, to)]  # 1 leaves a size as it is
    if len(to) == len(source) and all(_is_one(n) for n in sizes):
        return name
    return graph.node("Expand", name, graph.sizes(sizes))


@moves("Clone", "ToDevice", "Alias")
def identity(graph: Graph, step: Step) -> str:
    return graph.value(step.inputs[0])


@moves("Assign")
def assign(graph: Graph, step: Step) -> str:
    before, value = step.inputs
    return graph.operand(value, before.dtype)


@moves("Copy")
def copy(graph: Graph, step: Step) -> str:
    target, source = step.inputs
    return expanded(graph, graph.operand(source, target.dtype), source.shape, target.shape)


@moves("Fill")
def fill(graph: Graph, step: Step) -> str:
    target = step.inputs[0]
    return expanded(graph, graph.number(step.settings["value"], target.dtype), (), target.shape)


@moves("Concat")
def concat(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    return graph.node("Concat", *[graph.operand(x, dtype) for x in step.inputs], axis=step.settings["axis"])


@moves("Stack")
def stack(graph: Graph, step: Step) -> str:
    axis, dtype = step.settings["axis"], step.outputs[0].dtype
    grown = [graph.node("Unsqueeze", graph.operand(x, dtype), graph.constant([axis])) for x in step.inputs]
    return graph.node("Concat", *grown, axis=axis)


@moves("Flip")
def flip(graph: Graph, step: Step) -> str:
    axes = [int(a) for a in step.settings["axes"] or range(step.inputs[0].ndim)]
    if not axes:
        return graph.value(step.inputs[0])
    ends = [graph.constant([v] * len(axes)) for v in (-1, -INT_MAX)]
    return graph.node("Slice", graph.value(step.inputs[0]), *ends, graph.constant(axes), graph.constant([-1] * len(axes)))


@moves("Triangle")
def triangle(graph: Graph, step: Step) -> str:
    upper = int(step.settings["function"] == "triu")
    return graph.node("Trilu", graph.value(step.inputs[0]), graph.number(step.settings["diagonal"], dtypes.int64), upper=upper)


@moves("Created")
def created(graph: Graph, step: Step) -> str:
    """Tensors made from sizes: constants where nothing is dynamic."""
    out, function, args = step.outputs[0], step.settings["function"], step.settings["args"]
    if not is_dynamic(args) and function != "empty":
        return graph.constant(on_host(out._array))
    if function == "arange":
        kind = dtypes.int64 if all(isinstance(n, int) for n in args) else dtypes.float64
        made = graph.node("Range", *[graph.number(n, kind) for n in args])
        return made if out.dtype is kind else graph.cast(made, out.dtype)
    value = args[1] if function == "full" else int(function == "ones")
    shape = args if function == "eye" else args[0]
    filled = graph.node("Expand", graph.number(value, out.dtype), graph.sizes(shape))
    return graph.node("EyeLike", filled) if function == "eye" else filled
