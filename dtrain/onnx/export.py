"""Exporting a model to ONNX by running it once under a tracer."""

from __future__ import annotations

import os
from typing import Any, Sequence

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, UnsupportedError
from dtrain.onnx.trace import Created, Step, trace

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # what onnxruntime has read since 1.18


def export(
    model: Any,
    args: Any,
    f: Any = None,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamic_axes: dict[str, Any] | None = None,
    export_params: bool = True,
    do_constant_folding: bool = True,
    verbose: bool = False,
) -> Any:
    """Run ``model`` on ``args`` (a Tensor or a tuple of them) and write what it did as an ONNX model to ``f``.

    ``dynamic_axes`` maps input names to ``{axis: name}`` (or lists of axes): these sizes stay free, and sizes that
    follow from them too. The model is exported in the mode it is in: call ``eval()`` first. Without ``f`` the ModelProto
    is returned. Raises UnsupportedError for operations without an ONNX form, and where Python control flow or a
    number depends on a dynamic size or on a tensor's values; ArgumentError for names that do not fit.
    """
    from dtrain.onnx.convert import convert
    from dtrain.onnx.graph import Graph

    if not export_params:
        raise UnsupportedError("export_params=False is not supported: the weights are always in the file")
    tensors = (args,) if isinstance(args, Tensor) else tuple(args)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ArgumentError("export expects args to be a Tensor or a tuple of Tensors, the model's positional arguments")
    opset = opset_version or OPSET
    if not 18 <= opset <= 23:
        raise ArgumentError(f"opset_version {opset} is not supported; expected 18 to 23 ({OPSET} by default)")
    names = _names(input_names, len(tensors), "input")
    axes = [_axes(dynamic_axes, name, t) for name, t in zip(names, tensors)]
    unknown = set(dynamic_axes or {}) - set(names) - set(output_names or ())
    if unknown:
        raise ArgumentError(f"dynamic_axes names {sorted(unknown)}, which are no inputs or outputs; inputs are {names}")

    steps, inputs, outputs = trace(model, tensors, axes)
    graph = Graph(opset)
    for name, tensor in zip(names, inputs):
        graph.bind(tensor, name)
    _name_weights(graph, model)
    for step in steps:
        convert(graph, step)
    out_names = _names(output_names, len(outputs), "output")
    for name, tensor in zip(out_names, outputs):
        graph.nodes.append(_identity(graph.value(tensor), name))
    described_in = [graph.describe(n, t, a) for n, t, a in zip(names, inputs, axes)]
    given = dynamic_axes or {}
    described_out = [graph.describe(n, t, _output_axes(given.get(n), t, n)) for n, t in zip(out_names, outputs)]
    proto = graph.model(described_in, described_out, IR_VERSION)
    return _finish(proto, f, verbose)


def _finish(proto: Any, f: Any, verbose: bool) -> Any:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    if verbose:
        print(onnx.printer.to_text(proto))
    if f is None:
        return proto
    if hasattr(f, "write"):
        f.write(proto.SerializeToString())
        return None
    temporary = f"{os.fspath(f)}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(proto.SerializeToString())
        os.replace(temporary, f)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return None


def _identity(source: str, name: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [source], [name])


def _name_weights(graph: Any, model: Any) -> None:
    """Parameters and buffers keep their names; each is stored once."""
    if not hasattr(model, "named_parameters"):
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        graph.bind(tensor, graph.initializer(name, tensor.detach().cpu()._array))


def _names(given: Sequence[str] | None, count: int, kind: str) -> list[str]:
    names = list(given) if given is not None else [kind if count == 1 else f"{kind}_{i}" for i in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ArgumentError(f"{kind}_names {names} do not name the model's {count} {kind}s one each")
    return names


def _axes(dynamic: dict | None, name: str, tensor: Tensor) -> dict[int, str]:
    given = (dynamic or {}).get(name, {})
    axes = dict(given) if isinstance(given, dict) else {axis: f"{name}_{axis}" for axis in given}
    for axis in axes:
        if not isinstance(axis, int) or not 0 <= axis < tensor.ndim:
            raise ArgumentError(f"dynamic_axes: {name!r} has no axis {axis!r}; its shape is {tuple(tensor._array.shape)}")
    return axes


def _output_axes(given: Any, tensor: Tensor, name: str) -> dict[int, str]:
    """Names for an output's dynamic axes: those given, else the input's name where it is that very size."""
    out = {axis: f"{name}_{axis}" for axis in tensor.__dict__.get("_dynamic", ())}
    if isinstance(given, dict):
        out.update(given)
    return out


__all__ = ["Created", "Step", "export"]
