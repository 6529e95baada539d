"""How each recorded operation is said in ONNX: one short function an operation, found by its class name."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.tensor import Tensor
from dtrain.errors import UnsupportedError
from dtrain.onnx.graph import Graph
from dtrain.onnx.trace import Step

CONVERTERS: dict[str, Callable[[Graph, Step], Any]] = {}


def converter(*names: str) -> Callable:
    """Register a function for operations of these class names; it returns the name (or names) of the output."""

    def register(function: Callable) -> Callable:
        CONVERTERS.update(dict.fromkeys(names, function))
        return function

    return register


def convert(graph: Graph, step: Step) -> None:
    """Add the nodes of one step and bind its outputs."""
    if step.op == "alias":
        graph.bind(step.outputs[0], graph.value(step.inputs[0]))
        return
    function = CONVERTERS.get(step.name)
    if function is None:
        raise UnsupportedError(
            f"{step.name} (shapes {[tuple(t.shape) for t in step.inputs if isinstance(t, Tensor)]}) has no ONNX form here; "
            f"export knows {', '.join(sorted(CONVERTERS))}"
        )
    out = function(graph, step)
    for tensor, name in zip(step.outputs, [out] if isinstance(out, str) else out):
        graph.bind(tensor, name)


def _load() -> None:
    from dtrain.onnx import convert_math, convert_nn, convert_shape  # noqa: F401  (they register themselves)


_load()
