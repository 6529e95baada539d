"""Reductions in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes
from dtrain.onnx.convert import computed_in, converter, operands
from dtrain.onnx.convert_math import truth
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

NAMES = {"Sum": "ReduceSum", "Mean": "ReduceMean", "Norm2": "ReduceL2", "LogSumExp": "ReduceLogSumExp", "Prod": "ReduceProd"}


def reduced(graph: Graph, op_type: str, x: str, axis: Any, keepdims: bool) -> str:
    """A reduction over a tuple of axes, or None for all."""
    axes = [graph.constant(list(axis), np.int64)] if axis is not None else []
    return graph.node(op_type, x, *axes, keepdims=int(keepdims))


def _over(step: Step) -> tuple[Any, bool]:
    return step.settings["axis"], step.settings["keepdims"]


@converter(*NAMES)
def reduction(graph: Graph, step: Step) -> str:
    return reduced(graph, NAMES[step.name], *operands(graph, step), *_over(step))


@converter("Extremum")
def extremum(graph: Graph, step: Step) -> str:
    name = "ReduceMax" if step.settings["function"] == "max" else "ReduceMin"
    if step.outputs[0].dtype is not dtypes.bool:
        return reduced(graph, name, *operands(graph, step), *_over(step))
    return graph.cast(reduced(graph, name, graph.operand(step.inputs[0], dtypes.int32), *_over(step)), dtypes.bool)


@converter("AnyAll", computes=False)
def any_all(graph: Graph, step: Step) -> str:
    name = "ReduceMax" if step.settings["function"] == "any" else "ReduceMin"
    flags = graph.cast(truth(graph, step.inputs[0]), dtypes.int32)
    return graph.cast(reduced(graph, name, flags, *_over(step)), dtypes.bool)


@converter("Var", "Std")
def var(graph: Graph, step: Step) -> str:
    (x,), (axis, keepdims) = operands(graph, step), _over(step)
    centred = graph.node("Sub", x, reduced(graph, "ReduceMean", x, axis, True))
    total = reduced(graph, "ReduceSum", graph.node("Mul", centred, centred), axis, keepdims)
    count = 1
    for i, n in enumerate(step.inputs[0].shape):
        count = count * n if axis is None or i in axis else count
    divisor = graph.node("Sub", graph.number(count, computed_in(step)), graph.number(step.settings["correction"], computed_in(step)))
    out = graph.node("Div", total, graph.node("Max", divisor, graph.number(0, computed_in(step))))
    return graph.node("Sqrt", out) if step.name == "Std" else out


@converter("ArgExtreme", computes=False)
def arg_extreme(graph: Graph, step: Step) -> str:
    name = "ArgMax" if step.settings["function"] == "argmax" else "ArgMin"
    source, axis, keepdims = step.inputs[0], step.settings["axis"], step.settings["keepdims"]
    x = graph.operand(source, _sortable(source.dtype))
    if axis is not None:
        return graph.node(name, x, axis=axis, keepdims=int(keepdims))
    flat = graph.node(name, graph.node("Reshape", x, graph.constant([-1])), axis=0, keepdims=0)
    return graph.node("Reshape", flat, graph.constant([1] * source.ndim, np.int64)) if keepdims else flat


def _sortable(dtype: dtypes.dtype) -> dtypes.dtype:
    """What runtimes can sort and compare the same values in."""
    if dtype in (dtypes.float16, dtypes.bfloat16):
        return dtypes.float32
    return dtypes.int32 if dtype in (dtypes.bool, dtypes.int8, dtypes.uint8, dtypes.int16) else dtype


@converter("Argsort", computes=False)
def argsort(graph: Graph, step: Step) -> str:
    """All of top-k's indices; equal elements keep their order in both."""
    x, axis = step.inputs[0], step.settings["axis"]
    name = graph.operand(x, _sortable(x.dtype))
    found = graph.node("TopK", name, graph.size(x.shape[axis]), outputs=2, axis=axis, largest=int(step.settings["descending"]), sorted=1)
    return found[1]


@converter("Cumsum")
def cumsum(graph: Graph, step: Step) -> str:
    return graph.node("CumSum", *operands(graph, step), graph.constant(step.settings["axis"], np.int64))
