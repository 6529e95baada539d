"""Exporting a model to ONNX by running it under a tracer."""

from __future__ import annotations

import os
from typing import Any, Sequence

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, UnsupportedError
from dtrain.onnx.probe import Axes, State, other_runs, resized, sizes_of
from dtrain.onnx.trace import Step, Tracer, check_fresh

OPSET = 20  # the first with Gelu
OPSETS = range(18, 24)
IR_VERSION = 10  # what onnxruntime has read since 1.18
LARGEST = 2**31 - 1  # bytes of a protobuf message


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
    """Run ``model`` on ``args`` (a Tensor or a tuple of them) and write what it does as an ONNX model to ``f``, a path or file.

    ``dynamic_axes`` maps names of inputs (and outputs) to ``{axis: name}`` or lists of axes: these sizes stay free, and
    sizes that follow from them too. The model is exported in the mode it is in: call ``eval()`` first. Operations on
    weights and constants alone are done here, not in the graph. Without ``f`` the ModelProto is returned.

    Raises UnsupportedError for operations without an ONNX form, and where Python control flow or a number depends on a
    dynamic size or on a tensor's values; ArgumentError for names that do not fit. Nothing is written then.
    """
    if not export_params or not do_constant_folding:
        raise UnsupportedError("export_params=False and do_constant_folding=False are not supported: leave them at True")
    opset = OPSET if opset_version is None else opset_version
    if opset not in OPSETS:
        raise ArgumentError(f"opset_version {opset} is not supported; expected {OPSETS[0]} to {OPSETS[-1]} ({OPSET} by default)")
    tensors = (args,) if isinstance(args, Tensor) else tuple(args)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ArgumentError("export expects args to be a Tensor or a tuple of Tensors, the model's positional arguments")
    names = _names(input_names, len(tensors), "input")
    given = dict(dynamic_axes or {})
    axes = [_axes(given.pop(name, {}), name, t) for name, t in zip(names, tensors)]
    if output_names is not None:
        _check_known(given, names, list(output_names))
    proto = _build(model, tensors, axes, names, output_names, given, opset)
    return _finish(proto, f, verbose)


def _build(model: Any, args: tuple, axes: Axes, names: list[str], output_names: Any, output_axes: dict, opset: int) -> Any:
    Graph, convert = _tools()
    state, sizes = State(model), {name: max(n, 2) for name, n in sizes_of(args, axes).items()}
    args = resized(args, axes, sizes, False)
    state.guarded(model, args)  # an error of the model itself appears here
    runs = other_runs(model, state, args, axes, sizes)
    earlier, counts = zip(*[_steps(model, other) for other in runs])
    out_names = _names(output_names, counts[0], "output")
    _check_known(output_axes, names, out_names)
    if set(names) & set(out_names):
        raise ArgumentError(f"{sorted(set(names) & set(out_names))} name inputs and outputs; give the outputs other names in output_names")
    graph = Graph(opset)
    graph.reserve([*names, *out_names])
    _name_weights(graph, model)
    tracer = Tracer(list(earlier), lambda step: convert(graph, step))
    with tracer.on():
        for i, tensor in enumerate(args):
            tracer.mark(tensor, [other[i]._array.shape for other in runs])
        described = [graph.input(name, t, dynamic) for name, t, dynamic in zip(names, args, axes)]
        outputs = flatten(model(*args))
        tracer.finished()
        if len(set(counts) | {len(outputs)}) > 1:
            raise UnsupportedError(f"the model gives {len(outputs)} outputs, but {counts} at other sizes; only a fixed number can be exported")
        check_fresh("the output", outputs)
        results = _outputs(graph, outputs, out_names, output_axes)
    return graph.model(described, results, IR_VERSION)


def _steps(model: Any, args: tuple) -> tuple[list[Step], int]:
    """What the model does at other sizes, and how many outputs it gives."""
    tracer = Tracer()
    with tracer.on():
        for tensor in args:
            tracer.mark(tensor, [])
        return tracer.steps, len(flatten(model(*args)))


def _tools() -> tuple:
    """Graph and convert, which need the onnx package."""
    try:
        from dtrain.onnx.convert import convert
        from dtrain.onnx.graph import Graph
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UnsupportedError("dtrain.onnx.export needs the onnx package; pip install 'dtrain[onnx]'") from error
    return Graph, convert


def flatten(out: Any) -> tuple:
    """The tensors of a model's output, in order. Raises UnsupportedError for anything else in it."""
    if isinstance(out, Tensor):
        return (out,)
    if isinstance(out, (tuple, list, dict)):
        return tuple(t for v in (out.values() if isinstance(out, dict) else out) for t in flatten(v))
    raise UnsupportedError(f"the model's output holds {out!r}; expected tensors in tuples, lists or dicts only")


def _outputs(graph: Any, outputs: tuple, names: list[str], given: dict) -> list:
    described = []
    for name, tensor in zip(names, outputs):
        dynamic = {axis: f"{name}_{axis}" for axis, n in enumerate(tensor.shape) if type(n) is not int}
        for axis, label in _axes(given.get(name, {}), name, tensor).items():
            if axis not in dynamic:
                raise ArgumentError(f"dynamic_axes: axis {axis} of {name!r} has size {tensor._array.shape[axis]} whatever the inputs' sizes are")
            dynamic[axis] = label
        described.append(graph.output(name, tensor, dynamic))
    return described


def _finish(proto: Any, f: Any, verbose: bool) -> Any:
    import onnx

    size = proto.ByteSize()
    if size > LARGEST:
        raise UnsupportedError(f"the model takes {size} bytes, more than an ONNX file can hold ({LARGEST}); export it in float16 or in parts")
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
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, f)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return None


def _name_weights(graph: Any, model: Any) -> None:
    """Parameters and buffers keep their names."""
    if hasattr(model, "named_parameters"):
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            graph.weight(name, tensor)


def _names(given: Sequence[str] | None, count: int, kind: str) -> list[str]:
    names = list(given) if given is not None else [kind if count == 1 else f"{kind}_{i}" for i in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ArgumentError(f"{kind}_names {names} do not name the model's {count} {kind}s one each")
    return names


def _check_known(given: dict, inputs: list[str], outputs: list[str]) -> None:
    unknown = sorted(set(given) - set(outputs))
    if unknown:
        raise ArgumentError(f"dynamic_axes names {unknown}, which are no inputs or outputs; inputs are {inputs}, outputs {outputs}")


def _axes(given: Any, name: str, tensor: Tensor) -> dict[int, str]:
    axes = dict(given) if isinstance(given, dict) else {axis: f"{name}_{axis}" for axis in given}
    ndim = tensor.ndim
    for axis in axes:
        if not isinstance(axis, int) or not -ndim <= axis < ndim:
            raise ArgumentError(f"dynamic_axes: {name!r} has no axis {axis!r}; its shape is {tuple(tensor._array.shape)}")
    return {axis % ndim: label for axis, label in axes.items()}


