"""Elementwise operations, reductions and products in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes, promotion
from dtrain.onnx.convert import CONVERTERS, converter
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

BINARY = {"Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div", "Pow": "Pow", "Maximum": "Max", "Minimum": "Min"}
UNARY = {
    "Neg": "Neg", "Abs": "Abs", "Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Sin": "Sin", "Cos": "Cos", "Tan": "Tan", "Tanh": "Tanh",
    "Sinh": "Sinh", "Cosh": "Cosh", "Asin": "Asin", "Acos": "Acos", "Atan": "Atan", "Floor": "Floor", "Ceil": "Ceil", "Sign": "Sign",
    "Reciprocal": "Reciprocal", "Sigmoid": "Sigmoid", "Relu": "Relu", "Round": "Round", "Erf": "Erf", "Softplus": "Softplus",
}  # fmt: skip
COMPARE = {
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
}  # fmt: skip


def _common(step: Step) -> dtypes.dtype:
    """The dtype the operation computed in."""
    return promotion.result_type(*[getattr(x, "_array", x) for x in step.inputs])


@converter(*BINARY)
def binary(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    return graph.node(BINARY[step.name], *[graph.operand(x, dtype) for x in step.inputs])


@converter(*UNARY)
def unary(graph: Graph, step: Step) -> str:
    return graph.node(UNARY[step.name], graph.operand(step.inputs[0], step.outputs[0].dtype))


@converter("Plain")
def plain(graph: Graph, step: Step) -> str:
    function, dtype = step.settings["function"], _common(step)
    a, b = [graph.operand(x, dtypes.bool if function.startswith("logical") else dtype) for x in step.inputs]
    if function == "not_equal":
        return graph.node("Not", graph.node("Equal", a, b))
    name = COMPARE[function]
    if dtype is dtypes.bool and name.startswith("Bitwise"):
        name = name.removeprefix("Bitwise")
    return graph.node(name, a, b)


@converter("FloorDivide")
def floor_divide(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    a, b = [graph.operand(x, dtypes.float64 if not dtype.is_floating_point else dtype) for x in step.inputs]
    out = graph.node("Floor", graph.node("Div", a, b))
    return out if dtype.is_floating_point else graph.cast(out, dtype)


@converter("Square")
def square(graph: Graph, step: Step) -> str:
    x = graph.value(step.inputs[0])
    return graph.node("Mul", x, x)


@converter("Rsqrt")
def rsqrt(graph: Graph, step: Step) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", graph.value(step.inputs[0])))


@converter("Predicate")
def predicate(graph: Graph, step: Step) -> str:
    x = step.inputs[0]
    names = {"isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not", "invert": "Not" if x.dtype is dtypes.bool else "BitwiseNot"}
    if step.settings["function"] == "isfinite":
        return graph.node("Not", graph.node("Or", graph.node("IsNaN", graph.value(x)), graph.node("IsInf", graph.value(x))))
    return graph.node(names[step.settings["function"]], graph.operand(x, dtypes.bool) if "not" in step.settings["function"] else graph.value(x))


@converter("Clamp")
def clamp(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    ends = [graph.constant(v, dtype.np) if v is not None else "" for v in (step.settings["low"], step.settings["high"])]
    return graph.node("Clip", graph.operand(step.inputs[0], dtype), *ends)


@converter("Where")
def where(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    condition, a, b = step.inputs
    return graph.node("Where", graph.operand(condition, dtypes.bool), graph.operand(a, dtype), graph.operand(b, dtype))


@converter("Cast")
def cast(graph: Graph, step: Step) -> str:
    return graph.cast(graph.value(step.inputs[0]), step.outputs[0].dtype)


def _reduce(graph: Graph, op_type: str, x: str, axis: Any, keepdims: bool) -> str:
    axes = [graph.constant(list(axis))] if axis is not None else []
    return graph.node(op_type, x, *axes, keepdims=int(keepdims))


@converter("Sum", "Mean", "Norm2", "LogSumExp", "Prod")
def reduction(graph: Graph, step: Step) -> str:
    names = {"Sum": "ReduceSum", "Mean": "ReduceMean", "Norm2": "ReduceL2", "LogSumExp": "ReduceLogSumExp", "Prod": "ReduceProd"}
    x = graph.operand(step.inputs[0], step.outputs[0].dtype)
    return _reduce(graph, names[step.name], x, step.settings["axis"], step.settings["keepdims"])


@converter("Extremum")
def extremum(graph: Graph, step: Step) -> str:
    name = "ReduceMax" if step.settings["function"] == "max" else "ReduceMin"
    return _reduce(graph, name, graph.value(step.inputs[0]), step.settings["axis"], step.settings["keepdims"])


@converter("Var")
def var(graph: Graph, step: Step) -> str:
    x, dtype, axis = graph.value(step.inputs[0]), step.outputs[0].dtype, step.settings["axis"]
    centred = graph.node("Sub", x, _reduce(graph, "ReduceMean", x, axis, True))
    squares = graph.node("Mul", centred, centred)
    total = _reduce(graph, "ReduceSum", squares, axis, step.settings["keepdims"])
    shape = step.inputs[0].shape
    count = 1
    for i, n in enumerate(shape):
        count = n * count if axis is None or i in axis else count
    divisor = graph.cast(graph.scalar(count - int(step.settings["correction"])), dtype)
    return graph.node("Div", total, divisor)


@converter("ArgExtreme")
def arg_extreme(graph: Graph, step: Step) -> str:
    name = "ArgMax" if step.settings["function"] == "argmax" else "ArgMin"
    x, axis, keepdims = graph.value(step.inputs[0]), step.settings["axis"], step.settings["keepdims"]
    if axis is not None:
        return graph.node(name, x, axis=axis, keepdims=int(keepdims))
    flat = graph.node(name, graph.node("Reshape", x, graph.constant([-1])), axis=0, keepdims=0)
    return graph.node("Reshape", flat, graph.constant([1] * step.inputs[0].ndim)) if keepdims else flat


@converter("Cumsum")
def cumsum(graph: Graph, step: Step) -> str:
    return graph.node("CumSum", graph.operand(step.inputs[0], step.outputs[0].dtype), graph.constant(step.settings["axis"], np.int64))


@converter("Matmul")
def matmul(graph: Graph, step: Step) -> str:
    return graph.node("MatMul", *[graph.value(x) for x in step.inputs])


@converter("Einsum")
def einsum(graph: Graph, step: Step) -> str:
    equation = f"{','.join(step.settings['inputs'])}->{step.settings['output']}"
    return graph.node("Einsum", *[graph.value(x) for x in step.inputs], equation=equation)


@converter("Linear")
def linear(graph: Graph, step: Step) -> str:
    x, weight, *bias = step.inputs
    out = graph.node("MatMul", graph.value(x), graph.node("Transpose", graph.value(weight), perm=[1, 0]))
    return graph.node("Add", out, graph.value(bias[0])) if bias and bias[0] is not None else out


__all__ = ["CONVERTERS"]
