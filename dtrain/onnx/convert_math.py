"""Elementwise operations and products in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes, promotion
from dtrain.onnx.convert import computed_in, converter, operands
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

BINARY = {"Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div", "Pow": "Pow", "Maximum": "Max", "Minimum": "Min"}
UNARY = {
    "Neg": "Neg", "Abs": "Abs", "Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Sin": "Sin", "Cos": "Cos", "Tan": "Tan", "Tanh": "Tanh",
    "Sinh": "Sinh", "Cosh": "Cosh", "Asin": "Asin", "Acos": "Acos", "Atan": "Atan", "Sign": "Sign", "Reciprocal": "Reciprocal",
    "Sigmoid": "Sigmoid",
}  # fmt: skip
COMPARE = {
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
}  # fmt: skip


def number(graph: Graph, step: Step, n: Any) -> str:
    """A number in the dtype the step computes in."""
    return graph.number(n, computed_in(step))


@converter(*BINARY)
def binary(graph: Graph, step: Step) -> str:
    return graph.node(BINARY[step.name], *operands(graph, step))


@converter(*UNARY)
def unary(graph: Graph, step: Step) -> str:
    return graph.node(UNARY[step.name], *operands(graph, step))


@converter("Floor", "Ceil")
def whole(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    return graph.node(step.name, x) if computed_in(step).is_floating_point else x


@converter("Trunc", "TruncDivide")
def trunc(graph: Graph, step: Step) -> str:
    """ONNX's Div of integers rounds towards 0 itself."""
    x, *divisor = operands(graph, step)
    x = graph.node("Div", x, *divisor) if divisor else x
    if not computed_in(step).is_floating_point:
        return x
    return graph.node("Mul", graph.node("Sign", x), graph.node("Floor", graph.node("Abs", x)))


@converter("Round")
def round_(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    decimals = step.settings["decimals"]
    if not computed_in(step).is_floating_point:
        return x
    if decimals == 0:
        return graph.node("Round", x)
    scale = number(graph, step, 10.0 ** abs(decimals))
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return graph.node(back, graph.node("Round", graph.node(there, x, scale)), scale)


@converter("Log2", "Log10")
def log_to_base(graph: Graph, step: Step) -> str:
    return graph.node("Mul", graph.node("Log", *operands(graph, step)), number(graph, step, 1 / np.log({"Log2": 2, "Log10": 10}[step.name])))


@converter("Log1p")
def log1p(graph: Graph, step: Step) -> str:
    return graph.node("Log", graph.node("Add", *operands(graph, step), number(graph, step, 1)))


@converter("Expm1")
def expm1(graph: Graph, step: Step) -> str:
    return graph.node("Sub", graph.node("Exp", *operands(graph, step)), number(graph, step, 1))


@converter("Erf")
def erf(graph: Graph, step: Step) -> str:
    y = graph.node("Erf", *operands(graph, step))
    return graph.node("Sub", number(graph, step, 1), y) if step.settings.get("complement") else y


@converter("Square")
def square(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    return graph.node("Mul", x, x)


@converter("Rsqrt")
def rsqrt(graph: Graph, step: Step) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", *operands(graph, step)))


@converter("Lerp")
def lerp(graph: Graph, step: Step) -> str:
    a, b, weight = operands(graph, step)
    return graph.node("Add", a, graph.node("Mul", weight, graph.node("Sub", b, a)))


@converter("Remainder")
def remainder(graph: Graph, step: Step) -> str:
    a, b = operands(graph, step)
    if not computed_in(step).is_floating_point:
        return graph.node("Mod", a, b)
    return graph.node("Sub", a, graph.node("Mul", graph.node("Floor", graph.node("Div", a, b)), b))


@converter("FloorDivide")
def floor_divide(graph: Graph, step: Step) -> str:
    a, b = operands(graph, step)
    if computed_in(step).is_floating_point:
        return graph.node("Floor", graph.node("Div", a, b))
    return graph.node("Div", graph.node("Sub", a, graph.node("Mod", a, b)), b)


@converter("Plain", computes=False)
def plain(graph: Graph, step: Step) -> str:
    """Comparisons, logic and bits."""
    function, dtype = step.settings["function"], _common(step)
    if function in ("remainder", "fmod"):
        return remainder(graph, step)
    if function.startswith("logical"):
        a, b = [truth(graph, x) for x in step.inputs]
        return graph.node(COMPARE[function], a, b)
    a, b = [graph.operand(x, dtype) for x in step.inputs]
    if function == "not_equal":
        return graph.node("Not", graph.node("Equal", a, b))
    name = COMPARE[function]
    if dtype is dtypes.bool and name.startswith("Bitwise"):
        name = name.removeprefix("Bitwise")
    return graph.node(name, a, b)


def _common(step: Step) -> dtypes.dtype:
    """The dtype that the operands of a comparison are compared in."""
    dtype = promotion.result_type(*[x._array if isinstance(x, Tensor) else int(x) if isinstance(x, int) and type(x) is not bool else x for x in step.inputs])
    if dtype.is_floating_point and dtype.itemsize == 2:
        return dtypes.float32
    return dtypes.int32 if dtype in (dtypes.int8, dtypes.uint8, dtypes.int16) else dtype


def truth(graph: Graph, x: Any) -> str:
    """Whether a tensor or number is not 0, as bool."""
    if not isinstance(x, Tensor) or x.dtype is dtypes.bool:
        return graph.operand(x, dtypes.bool)
    return graph.cast(graph.value(x), dtypes.bool)


@converter("Predicate", computes=False)
def predicate(graph: Graph, step: Step) -> str:
    (x,), function = step.inputs, step.settings["function"]
    if function == "logical_not" or x.dtype is dtypes.bool and function == "invert":
        return graph.node("Not", truth(graph, x))
    if function == "invert":
        return graph.node("BitwiseNot", graph.value(x))
    wide = dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32
    nan, infinite = [graph.node(name, graph.operand(x, wide)) for name in ("IsNaN", "IsInf")]
    return {"isnan": nan, "isinf": infinite}.get(function) or graph.node("Not", graph.node("Or", nan, infinite))


@converter("Clamp")
def clamp(graph: Graph, step: Step) -> str:
    ends = [number(graph, step, v) if v is not None else "" for v in (step.settings["low"], step.settings["high"])]
    return graph.node("Clip", *operands(graph, step), *ends)


@converter("Where", computes=False)
def where(graph: Graph, step: Step) -> str:
    dtype = step.outputs[0].dtype
    condition, a, b = step.inputs
    return graph.node("Where", truth(graph, condition), graph.operand(a, dtype), graph.operand(b, dtype))


@converter("Cast", computes=False)
def cast(graph: Graph, step: Step) -> str:
    return graph.cast(graph.value(step.inputs[0]), step.outputs[0].dtype)


@converter("Matmul")
def matmul(graph: Graph, step: Step) -> str:
    return graph.node("MatMul", *operands(graph, step))


@converter("Einsum")
def einsum(graph: Graph, step: Step) -> str:
    equation = f"{','.join(step.settings['inputs'])}->{step.settings['output']}"
    return graph.node("Einsum", *operands(graph, step), equation=equation)


@converter("Linear")
def linear(graph: Graph, step: Step) -> str:
    x, weight, *bias = operands(graph, step)
    if step.inputs[0].ndim == 2:
        return graph.node("Gemm", x, weight, *bias, transB=1)
    out = graph.node("MatMul", x, graph.node("Transpose", weight, perm=[1, 0]))
    return graph.node("Add", out, *bias) if bias else out
