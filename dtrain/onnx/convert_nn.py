"""Activations, softmax, normalisation and attention in ONNX."""

from __future__ import annotations

import math

import numpy as np

from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.convert import computed_in, converter, operands
from dtrain.onnx.convert_math import number
from dtrain.onnx.convert_reduce import reduced
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

SIMPLE = {"Relu": "Relu", "Hardswish": "HardSwish", "Prelu": "PRelu"}


@converter(*SIMPLE)
def simple(graph: Graph, step: Step) -> str:
    return graph.node(SIMPLE[step.name], *operands(graph, step))


@converter("Gelu", "GeluTanh")
def gelu(graph: Graph, step: Step) -> str:
    (x,), tanh = operands(graph, step), step.name == "GeluTanh"
    if graph.opset >= 20:
        return graph.node("Gelu", x, approximate="tanh" if tanh else "none")
    one, half = number(graph, step, 1), number(graph, step, 0.5)
    if tanh:
        cubic = graph.node("Add", graph.node("Mul", graph.node("Mul", x, x), number(graph, step, 0.044715)), one)
        inner = graph.node("Mul", graph.node("Mul", x, cubic), number(graph, step, math.sqrt(2 / math.pi)))
        below = graph.node("Tanh", inner)
    else:
        below = graph.node("Erf", graph.node("Mul", x, number(graph, step, math.sqrt(0.5))))
    return graph.node("Mul", graph.node("Mul", x, half), graph.node("Add", below, one))


@converter("Silu")
def silu(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@converter("Softplus")
def softplus(graph: Graph, step: Step) -> str:
    (x,), beta = operands(graph, step), step.settings["beta"]
    scaled = graph.node("Mul", x, number(graph, step, beta))
    smooth = graph.node("Div", graph.node("Softplus", scaled), number(graph, step, beta))
    return graph.node("Where", graph.node("Greater", scaled, number(graph, step, step.settings["threshold"])), x, smooth)


@converter("LogSigmoid")
def log_sigmoid(graph: Graph, step: Step) -> str:
    return graph.node("Neg", graph.node("Softplus", graph.node("Neg", *operands(graph, step))))


@converter("Mish")
def mish(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))


@converter("Elu")
def elu(graph: Graph, step: Step) -> str:
    (x,), zero = operands(graph, step), number(graph, step, 0)
    alpha, scale, rate = [step.settings[name] for name in ("alpha", "scale", "rate")]
    if scale == rate == 1:
        return graph.node("Elu", x, alpha=float(alpha))
    below = graph.node("Exp", graph.node("Mul", graph.node("Min", x, zero), number(graph, step, rate)))
    below = graph.node("Mul", graph.node("Sub", below, number(graph, step, 1)), number(graph, step, alpha * scale))
    return graph.node("Add", below, graph.node("Mul", graph.node("Max", x, zero), number(graph, step, scale)))


@converter("LeakyRelu")
def leaky_relu(graph: Graph, step: Step) -> str:
    return graph.node("LeakyRelu", *operands(graph, step), alpha=float(step.settings["below"]))


@converter("Hardtanh")
def hardtanh(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    low, high, scale, shift = [step.settings[name] for name in ("low", "high", "scale", "shift")]
    if (scale, shift) != (1, 0):
        x = graph.node("Mul", graph.node("Add", x, number(graph, step, shift)), number(graph, step, scale))
    return graph.node("Clip", x, number(graph, step, low), number(graph, step, high))


@converter("Shrink")
def shrink(graph: Graph, step: Step) -> str:
    limit = float(step.settings["limit"])
    return graph.node("Shrink", *operands(graph, step), lambd=limit, bias=limit if step.settings["soft"] else 0.0)


@converter("Threshold")
def threshold(graph: Graph, step: Step) -> str:
    (x,) = operands(graph, step)
    above = graph.node("Greater", x, number(graph, step, step.settings["threshold"]))
    return graph.node("Where", above, x, number(graph, step, step.settings["filling"]))


@converter("Softmax", "LogSoftmax")
def softmax(graph: Graph, step: Step) -> str:
    return graph.node(step.name, *operands(graph, step), axis=step.settings["axis"])


@converter("Dropout")
def dropout(graph: Graph, step: Step) -> str:
    raise UnsupportedError("dropout is at work: the model is in training mode. Call eval() before the export")


@converter("Standardize")
def standardize(graph: Graph, step: Step) -> str:
    """Layer and RMS norm over trailing dims; group and instance norm over the input seen as (batch, groups, rest)."""
    view, axes = step.settings["view"], step.settings["axes"]
    if 0 in axes:
        raise UnsupportedError("batch norm with the batch's own statistics: the model is in training mode. Call eval() before the export")
    return _over_trailing(graph, step) if len(view) == 2 else _over_positions(graph, step)


def _over_trailing(graph: Graph, step: Step) -> str:
    x, dtype = step.inputs[0], computed_in(step)
    width, dims, found = step.settings["view"][1], 0, 1
    while found != width or dims == 0:
        dims += 1
        found = x.shape[-dims] * found
    trailing, name = tuple(range(-dims, 0)), graph.operand(x, dtype)
    weight, bias = [graph.operand(p, dtype) if p is not None else None for p in (*step.inputs[1:], None, None)[:2]]
    if step.settings["centred"]:
        weight = weight or graph.constant(np.ones([int(n) for n in x.shape[-dims:]]).astype(dtype.np))
        return graph.node("LayerNormalization", name, weight, *([bias] if bias else []), axis=-dims, epsilon=float(step.settings["eps"]))
    unit = _unit(graph, step, name, trailing)
    return graph.node("Mul", unit, weight) if weight else unit


def _unit(graph: Graph, step: Step, x: str, axes: tuple) -> str:
    """x over the root of its mean square."""
    square = reduced(graph, "ReduceMean", graph.node("Mul", x, x), axes, True)
    return graph.node("Div", x, graph.node("Sqrt", graph.node("Add", square, number(graph, step, step.settings["eps"]))))


def _over_positions(graph: Graph, step: Step) -> str:
    x, dtype = step.inputs[0], computed_in(step)
    name = graph.operand(x, dtype)
    grouped = graph.node("Reshape", name, graph.constant([0, int(step.settings["view"][1]), -1]))
    centred = graph.node("Sub", grouped, reduced(graph, "ReduceMean", grouped, (2,), True))
    out = graph.node("Reshape", _unit(graph, step, centred, (2,)), graph.node("Shape", name))
    column = graph.constant([-1, *[1] * (x.ndim - 2)])
    for op_type, param in zip(("Mul", "Add"), step.inputs[1:]):
        if param is not None:
            out = graph.node(op_type, out, graph.node("Reshape", graph.operand(param, dtype), column))
    return out


@converter("Attention")
def attention(graph: Graph, step: Step) -> str:
    """softmax(scale * q k^T + mask) v over (batch, heads, length, width); heads of k and v may serve several of q."""
    if step.settings["keep"] is not None:
        raise UnsupportedError("attention with dropout: the model is in training mode. Call eval() before the export")
    q, k, v, *mask = operands(graph, step)
    heads, kv = step.inputs[0].shape[1], step.inputs[1].shape[1]
    if heads != kv:
        k, v = [_repeated(graph, name, t.shape, heads // kv) for name, t in zip((k, v), step.inputs[1:3])]
    q = graph.node("Mul", q, number(graph, step, step.settings["scale"]))
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
    if mask:
        scores = graph.node("Add", scores, mask[0])
    if step.settings["causal"]:
        scores = graph.node("Where", _later(graph, step), number(graph, step, -math.inf), scores)
    weights = graph.node("Softmax", scores, axis=-1)
    if mask:  # rows without a key
        dead = graph.node("Equal", reduced(graph, "ReduceMax", scores, (3,), True), number(graph, step, -math.inf))
        weights = graph.node("Where", dead, number(graph, step, 0), weights)
    return graph.node("MatMul", weights, v)


def _repeated(graph: Graph, name: str, shape: tuple, times: int) -> str:
    """(batch, heads, length, width) with every head ``times`` in a row."""
    wide = graph.node("Expand", graph.node("Unsqueeze", name, graph.constant([2])), graph.constant([1, 1, times, 1, 1]))
    return graph.node("Reshape", wide, graph.sizes([shape[0], shape[1] * times, shape[2], shape[3]]), allowzero=1)


def _later(graph: Graph, step: Step) -> str:
    """(queries, keys) bool: the keys that come after a query."""
    queries, keys = [
        graph.node("Range", graph.constant(0), graph.number(t.shape[2], dtypes.int64), graph.constant(1)) for t in step.inputs[:2]
    ]
    return graph.node("Less", graph.node("Unsqueeze", queries, graph.constant([1])), graph.node("Unsqueeze", keys, graph.constant([0])))
