"""How each recorded operation is said in ONNX: one short function an operation, found by its class name."""

from __future__ import annotations

from typing import Callable

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import UnsupportedError
from dtrain.onnx.graph import Graph, on_host
from dtrain.onnx.sizes import is_dynamic
from dtrain.onnx.trace import Step

CONVERTERS: dict[str, Callable[[Graph, Step], str]] = {}
_HALVES = (dtypes.float16, dtypes.bfloat16)
_NARROW = (dtypes.int8, dtypes.uint8, dtypes.int16)


def converter(*names: str, computes: bool = True) -> Callable:
    """Register a function for operations of these class names; it returns the name of the output.

    One that ``computes`` gives it in ``computed_in(step)``; one that moves values, in the output's dtype.
    """

    def register(function: Callable[[Graph, Step], str]) -> Callable[[Graph, Step], str]:
        CONVERTERS.update(dict.fromkeys(names, _cast_back(function) if computes else function))
        return function

    return register


def _cast_back(function: Callable[[Graph, Step], str]) -> Callable[[Graph, Step], str]:
    def call(graph: Graph, step: Step) -> str:
        name, dtype = function(graph, step), step.outputs[0].dtype
        return name if computed_in(step) is dtype else graph.cast(name, dtype)

    return call


def computed_in(step: Step) -> dtypes.dtype:
    """The dtype a step computes in: as in dtrain float32 for halves, and int32 for integers that runtimes have no arithmetic for."""
    dtype = step.outputs[0].dtype
    if dtype in _HALVES and step.op.half_as_float:
        return dtypes.float32
    return dtypes.int32 if dtype in _NARROW else dtype


def operands(graph: Graph, step: Step) -> list[str]:
    """All inputs in the dtype the step computes in."""
    dtype = computed_in(step)
    return [graph.operand(x, dtype) for x in step.inputs if x is not None]


def convert(graph: Graph, step: Step) -> None:
    """Add the nodes of one step and bind its output."""
    function = CONVERTERS.get(step.name)
    if function is None:
        raise UnsupportedError(
            f"{step.name} (shapes {[tuple(t._array.shape) for t in step.inputs if isinstance(t, Tensor)]}) has no ONNX form here; "
            f"export knows {', '.join(sorted(CONVERTERS))}"
        )
    (out,) = step.outputs
    graph.bind(out, graph.constant(on_host(out._array)) if _is_constant(step) else function(graph, step))


def _is_constant(step: Step) -> bool:
    """Whether a step takes the same part of a constant whatever the sizes are."""
    return bool(step.inputs) and not any(step.traced) and not is_dynamic([*step.inputs, *step.settings.values()])


def _load() -> None:
    from dtrain.onnx import convert_index, convert_math, convert_nn, convert_reduce, convert_shape, convert_windows  # noqa: F401  (they register)


_load()
