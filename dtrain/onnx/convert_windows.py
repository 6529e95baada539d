"""Convolution and pooling in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.convert import computed_in, converter, operands
from dtrain.onnx.graph import Graph
from dtrain.onnx.sizes import agree, is_dynamic
from dtrain.onnx.trace import Step


def _geometry(step: Step) -> dict[str, Any]:
    win = step.settings["windows"]
    if is_dynamic((win.kernel, win.stride, win.dilation, win.padding)):
        raise UnsupportedError(f"{step.name} has windows of {win.kernel} elements, which follow from a dynamic size; ONNX windows are fixed")
    before, after = zip(*win.padding)
    return {"kernel_shape": list(win.kernel), "strides": list(win.stride), "pads": [*before, *after], "dilations": list(win.dilation)}


@converter("Convolve")
def convolve(graph: Graph, step: Step) -> str:
    return graph.node("Conv", *operands(graph, step), group=step.settings["groups"], **_geometry(step))


@converter("ConvInput")
def convolve_transposed(graph: Graph, step: Step) -> str:
    win = step.settings["windows"]
    inner = step.inputs[0].shape[2:]
    least = [(n - 1) * s - sum(p) + d * (k - 1) + 1 for n, s, p, d, k in zip(inner, win.stride, win.padding, win.dilation, win.kernel)]
    extra = [int(size) - int(n) for size, n in zip(win.size, least)]
    return graph.node("ConvTranspose", *operands(graph, step), group=step.settings["groups"], output_padding=extra, **_geometry(step))


def _planes(graph: Graph, step: Step) -> tuple[str, bool]:
    """The input with a batch dim, and whether it was added."""
    (x,) = operands(graph, step)
    single = step.inputs[0].ndim == len(step.settings["windows"].size) + 1
    return (graph.node("Unsqueeze", x, graph.constant([0])), True) if single else (x, False)


def _rounding(step: Step) -> dict[str, Any]:
    """Windows of ceil_mode may reach beyond the padding: more padding where sizes are fixed, else ONNX's own ceil_mode."""
    geometry, win = _geometry(step), step.settings["windows"]
    spans = [d * (k - 1) + 1 for k, d in zip(win.kernel, win.dilation)]
    beyond = [(o - 1) * s + span - n - sum(p) for o, s, span, n, p in zip(win.out, win.stride, spans, win.size, win.padding)]
    if is_dynamic(win.size):
        return {**geometry, "ceil_mode": int(win.given_out)}
    dims = len(spans)
    geometry["pads"] = [p + max(extra, 0) if i >= dims else p for i, (p, extra) in enumerate(zip(geometry["pads"], [0] * dims + beyond))]
    return geometry


def _global(step: Step) -> bool:
    """Whether one window takes all of each dim, at all sizes."""
    win = step.settings["windows"]
    whole = all(agree(k, n) for k, n in zip(win.kernel, win.size))
    return whole and is_dynamic(win.kernel) and all(agree(n, 1) for n in win.out)


@converter("MaxPool")
def max_pool(graph: Graph, step: Step) -> str:
    x, single = _planes(graph, step)
    y = graph.node("GlobalMaxPool", x) if _global(step) else graph.node("MaxPool", x, **_rounding(step))
    return graph.node("Squeeze", y, graph.constant([0])) if single else y


@converter("MaxPoolIndices", computes=False)
def max_pool_indices(graph: Graph, step: Step) -> str:
    """ONNX counts positions in the whole tensor, dtrain in each plane."""
    dtype = step.inputs[0].dtype
    x = graph.operand(step.inputs[0], dtypes.float32 if dtype.itemsize == 2 else dtype)
    win = step.settings["windows"]
    single = step.inputs[0].ndim == len(win.size) + 1
    x = graph.node("Unsqueeze", x, graph.constant([0])) if single else x
    _, found = graph.node("MaxPool", x, outputs=2, **_rounding(step))
    plane = 1
    for n in step.inputs[0].shape[-len(win.size) :]:
        plane = plane * n
    found = graph.node("Mod", found, graph.number(plane, dtypes.int64))
    return graph.node("Squeeze", found, graph.constant([0])) if single else found


@converter("WindowSum")
def window_sum(graph: Graph, step: Step) -> str:
    """An average pool, times what a window's scale differs from 1 / its number of elements."""
    win, scale = step.settings["windows"], step.settings["scale"]
    x, single = _planes(graph, step)
    if is_dynamic(win.size) and (win.is_padded or win.given_out):
        y = graph.node("AveragePool", x, count_include_pad=_counts_padding(step), **_averaging(_rounding(step)))
    else:
        y = graph.node("AveragePool", x, count_include_pad=1, **_averaging(_rounding(step)))
        factor = np.asarray(scale * win.count)
        if not np.all(factor == 1):
            y = graph.node("Mul", y, graph.constant(factor.astype(computed_in(step).np)))
    return graph.node("Squeeze", y, graph.constant([0])) if single else y


def _averaging(geometry: dict[str, Any]) -> dict[str, Any]:
    if any(d != 1 for d in geometry.pop("dilations")):
        raise AssertionError("an average pool has no dilation")
    return geometry


def _counts_padding(step: Step) -> int:
    """Which of ONNX's two ways of counting the scale array is."""
    from dtrain.ops.pool import _shares

    win, scale = step.settings["windows"], step.settings["scale"]
    for include in (False, True):
        shares = _shares(win, include)
        if np.shape(shares) == np.shape(scale) and np.allclose(shares, scale):
            return int(include)
    raise UnsupportedError("an average pool with a divisor of its own over a dynamic size has no ONNX form here")
