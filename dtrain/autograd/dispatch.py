"""The one dispatch point: every operation on Tensors goes through ``apply`` or ``apply_``, which build the graph.

Autocast, tracing, profiling and anomaly detection are modes: handlers in ``local.modes``, called as
``handler(op, inputs, proceed)``. Without one, an operation costs a loop over its inputs and the array work.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd import views
from dtrain.autograd.moves import Cast, ToDevice
from dtrain.autograd.op import Op, _order
from dtrain.autograd.tensor import Tensor
from dtrain.backend import cuda_guard, dtypes, namespace, promotion
from dtrain.backend.state import local
from dtrain.errors import DeviceError, DtrainError, DtypeError, IndexRangeError, ShapeError

_F32 = np.dtype(np.float32)
_by_type = namespace.by_type
_new = object.__new__


def apply(op: Op, *inputs: Any) -> Any:
    """Run ``op`` on Tensors and constants and return its output Tensor (a tuple for several), recording the graph."""
    if local.modes:
        return through_modes(op, inputs)
    return run(op, inputs)


def through_modes(op: Op, inputs: tuple) -> Any:
    """Run ``op`` inside the active modes, the last one entered outermost."""
    modes = local.modes

    def proceed(depth: int, op: Op, inputs: tuple) -> Any:
        if depth < 0:
            return run_(op.op, inputs[0], inputs[1:]) if isinstance(op, InPlace) else run(op, inputs)
        return modes[depth](op, inputs, lambda o, i: proceed(depth - 1, o, i))

    return proceed(len(modes) - 1, op, inputs)


def announce(function: str, tensor: Tensor, **settings: Any) -> Tensor:
    """Tell the modes that want to know (a tracer) of a tensor made from sizes and numbers alone; returns it."""
    for mode in local.modes:
        if hasattr(mode, "created"):
            mode.created(function, tensor, settings)
    return tensor


def run(op: Op, inputs: tuple) -> Any:
    # Every tensor operation of every program passes here: written for few calls rather than few lines.
    arrays = []
    wants = False
    plain = True
    for x in inputs:
        if isinstance(x, Tensor):
            array = x._array
            arrays.append(array)
            if x._rg or x._base is not None and views.awakened(x):
                wants = True
            if array.dtype is not _F32:
                plain = False
        else:
            arrays.append(x)
    if not plain:
        inputs, arrays, half = prepare(op, inputs, arrays)
        if half is not None:
            return cast_back(run(op, inputs), half)
    xp = _by_type.get(arrays[0].__class__) or namespace_of(arrays)
    try:
        if xp.is_cuda or op.kernels:
            out = _forward(op, xp, arrays)
        else:
            out = op.forward(xp, *arrays)
    except DtrainError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        moved = _scalars_moved(inputs)
        if moved is not None:
            return run(op, moved)
        raise explain(op, xp, arrays, error) from error
    if out.__class__ is tuple:
        return _several(op, xp, inputs, arrays, out, wants)
    if out.__class__ is not xp.ndarray and isinstance(out, (np.generic, float, int)):
        out = _as_array(op, xp, out)
    tensor = _new(Tensor)
    tensor._array = out
    tensor._vc = [0]
    tensor._rg = False
    tensor._grad = tensor._node = tensor._base = tensor._chain = tensor._more = None
    tensor._port = tensor._seen = 0
    if wants and op.differentiable and local.grad_enabled:
        record(op, inputs, arrays, (tensor,))
    if op.is_view:
        views.link(op, inputs[0], tensor)
    return tensor


def _several(op: Op, xp: Any, inputs: tuple, arrays: list, out: tuple, wants: bool) -> tuple:
    """The outputs of an operation with several, as Tensors; integer ones stay outside the graph."""
    outs = tuple([Tensor._wrap(a) for a in out])
    if wants and op.differentiable and local.grad_enabled:
        record(op, inputs, arrays, outs)
        op.outputs = tuple([(t._array.shape, t._array.dtype, xp) for t in outs])
        for t in outs:
            if t._array.dtype.kind not in "fcV":  # V: bfloat16
                t._node, t._port, t._rg = None, 0, False
    return outs


def forward(op: Op, xp: Any, arrays: list) -> Any:
    """``op.forward`` on raw arrays, errors explained; the result an array or a tuple of arrays."""
    try:
        out = _forward(op, xp, arrays)
    except DtrainError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        raise explain(op, xp, arrays, error) from error
    return _as_array(op, xp, out) if isinstance(out, (np.generic, float, int)) else out


def _forward(op: Op, xp: Any, arrays: list) -> Any:
    """``op.forward`` through a fused kernel where there is one, on the right device."""
    if xp.is_cuda:
        with cuda_guard(arrays):
            return _kernel_or_body(op, xp, arrays)
    return _kernel_or_body(op, xp, arrays)


def _kernel_or_body(op: Op, xp: Any, arrays: list) -> Any:
    kernel = op.kernels.get(xp.name) if op.kernels else None
    out = kernel(op, xp, *arrays) if kernel is not None else None
    return op.forward(xp, *arrays) if out is None else out


def _as_array(op: Op, xp: Any, out: Any) -> Any:
    """NumPy turns 0-dim results into scalars: back to an array, also where it was saved."""
    array = xp.asarray(out)
    if op.saved:
        op.saved = tuple([array if value is out else value for value in op.saved])
    return array


def record(op: Op, inputs: tuple, arrays: list, outs: tuple) -> None:
    """Make ``op`` the node that leads from ``outs`` back to the inputs that need a gradient."""
    edges: list[Any] = []
    ports = None
    for x in inputs:
        if isinstance(x, Tensor) and x._rg:
            if x._base is not None:
                views.refresh(x)
            node = x._node
            if node is None:
                edges.append(x)
            else:
                if x._port:
                    ports = ports or [0] * len(inputs)
                    ports[len(edges)] = x._port
                edges.append(node)
        else:
            edges.append(None)
    op.edges = edges
    if ports is not None:
        op.ports = ports
    op.order = next(_order)
    if op.saved:
        mark(op, inputs, arrays, outs)
    port = 0
    for out in outs:
        out._node = op
        out._port = port
        out._rg = True
        port += 1


def mark(op: Op, inputs: tuple, arrays: list, outs: tuple) -> None:
    """Note which saved values are inputs or outputs, and at which version."""
    marks = []
    versions = []
    for value in op.saved:
        found = version = None
        i = 0
        for array in arrays:
            if array is value and isinstance(inputs[i], Tensor):
                found = i
                counter = inputs[i]._vc
                version = (counter, counter[0])
                break
            i += 1
        else:
            port = -1
            for out in outs:
                if out._array is value:
                    found = port
                    version = (out._vc, out._vc[0])
                    break
                port -= 1
        marks.append(found)
        versions.append(version)
    op.marks = marks
    op.versions = versions


def apply_(op: Op, target: Tensor, *others: Any) -> Tensor:
    """Run ``op(target, *others)`` and write the result into ``target``'s memory; the graph follows."""
    if local.modes:
        return through_modes(InPlace(op), (target, *others))
    return run_(op, target, others)


class InPlace(Op):
    """What modes see of an in-place operation: the operation ``op``, whose result goes into input 0."""

    def __init__(self, op: Op) -> None:
        self.op = op

    def name(self) -> str:  # type: ignore[override]
        return self.op.name() + "_"


def run_(op: Op, target: Tensor, others: tuple) -> Tensor:
    inputs = (target, *others)
    wants = local.grad_enabled and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    if wants:
        views.check_writable(op, target)
    arrays = [x._array if isinstance(x, Tensor) else x for x in inputs]
    memory = arrays[0]
    if getattr(memory, "base", None) is not None:
        views.check_memory(op, memory)
    xp = namespace_of(arrays)
    if wants and op.differentiable:
        value = _tracked_value(op, target, inputs)
    else:
        plain_inputs, arrays, half = prepare(op, inputs, arrays, differentiable=False)
        value = Tensor._wrap(forward(op, xp, arrays))
    _check_result(op, target, value)
    if wants and op.saved:
        _keep_before_overwrite(op, memory, value._array)
    xp.copyto(memory, value._array, casting="unsafe")
    target._vc[0] += 1
    if wants:
        _requeue_output(op, target, value)
        views.rebase(target, value)
    return target


def _tracked_value(op: Op, target: Tensor, inputs: tuple) -> Tensor:
    value = run(op, inputs)
    if value._array.dtype != target._array.dtype:
        value = cast_back(value, target._array.dtype)
    return value


def _check_result(op: Op, target: Tensor, value: Tensor) -> None:
    if value._array.shape != target._array.shape:
        raise ShapeError(
            f"{op.name().lower()}_ writes into a tensor of shape {tuple(target._array.shape)} but its result has shape "
            f"{tuple(value._array.shape)}; in-place operations cannot broadcast their target"
        )
    if not promotion.can_cast(value.dtype, target.dtype):
        raise DtypeError(
            f"result type {value.dtype} of {op.name().lower()}_ cannot be stored in a tensor of {target.dtype}; "
            f"use the out-of-place form, or .to({value.dtype}) first"
        )


def _keep_before_overwrite(op: Op, memory: Any, result: Any) -> None:
    """Saved values that live in the memory about to change are copied; the saved result becomes that memory."""
    saved, marks, versions = list(op.saved), list(op.marks), list(op.versions)
    for i, value in enumerate(saved):
        if value is memory:
            saved[i] = value.copy()
            versions[i] = None
        elif value is result:
            saved[i] = memory
    op.saved, op.marks, op.versions = tuple(saved), marks, versions


def _requeue_output(op: Op, target: Tensor, value: Tensor) -> None:
    """A saved result now is the target's memory: from here on its version counts."""
    if value._node is op and op.versions:
        op.versions = [
            (target._vc, target._vc[0]) if mark is not None and mark < 0 else version
            for mark, version in zip(op.marks, op.versions)
        ]


def prepare(op: Op, inputs: tuple, arrays: list, differentiable: bool = True) -> tuple[tuple, list, Any]:
    """Bring inputs to the dtype the operation computes in.

    Returns inputs, arrays and the half dtype to cast the result back to, or None.
    """
    xp = namespace_of(arrays)
    wanted = promotion.promote_arrays(xp, arrays) if op.promotes else list(arrays)
    if op.floats:
        default = dtypes.get_default_dtype().np
        wanted = [a.astype(default) if getattr(a, "dtype", default).kind in "iub" else a for a in wanted]
    half = None
    if op.half_as_float and not xp.native_half:
        half = _half_of(wanted)
        if half is not None:
            wanted = [a.astype(_F32) if getattr(a, "dtype", None) == half else a for a in wanted]
    if not differentiable:
        return inputs, wanted, half
    if all(w is a for w, a in zip(wanted, arrays)):
        return inputs, arrays, None
    return _cast_inputs(inputs, arrays, wanted), wanted, half


def _half_of(arrays: list) -> Any:
    for a in arrays:
        dtype = getattr(a, "dtype", None)
        if dtype is not None and dtype.itemsize == 2 and dtype.kind in "fV":
            return dtype
    return None


def _cast_inputs(inputs: tuple, arrays: list, wanted: list) -> tuple:
    """The inputs as Tensors of the wanted arrays; those that carry a gradient get a Cast node."""
    out = []
    for x, a, w in zip(inputs, arrays, wanted):
        if w is a or not isinstance(x, Tensor):
            out.append(w if not isinstance(x, Tensor) else x)
        elif x._rg and local.grad_enabled:
            out.append(run(Cast(w.dtype), (x,)))
        else:
            out.append(Tensor._wrap(w))
    # Cast nodes hold arrays of their own: compute with those, so that saved values are recognised.
    for i, x in enumerate(out):
        if isinstance(x, Tensor):
            wanted[i] = x._array
    return tuple(out)


def cast_back(out: Any, dtype: Any) -> Any:
    """Results of a computation in float32 go back to the half dtype of the inputs."""
    if isinstance(out, tuple):
        return tuple([cast_back(t, dtype) for t in out])
    return run(Cast(dtype), (out,)) if out._array.dtype.kind == "f" else out


def namespace_of(arrays: list) -> namespace.Namespace:
    """The namespace all arrays share, CPU scalars aside."""
    found = None
    for a in arrays:
        if hasattr(a, "dtype") and hasattr(a, "shape"):
            xp = namespace.of(a)
            if found is None or (found is not xp and found.name == "numpy" and _zero_dim_mix(arrays)):
                found = xp
            elif xp is not found and a.ndim:
                raise DeviceError(
                    f"expected all tensors on one device, got {sorted({_where(b) for b in arrays if hasattr(b, 'dtype')})}; "
                    "move them with .to(device)"
                )
    if found is None:
        raise AssertionError("an operation needs at least one array")
    return found


def _zero_dim_mix(arrays: list) -> bool:
    return all(a.ndim == 0 for a in arrays if type(a) is np.ndarray)


def _scalars_moved(inputs: tuple) -> tuple | None:
    """The inputs with 0-dim CPU tensors moved to the GPU of the others, as PyTorch does; None where there is nothing to move."""
    gpu = next((x for x in inputs if isinstance(x, Tensor) and namespace.of(x._array).is_cuda), None)
    if gpu is None or not any(_is_cpu_scalar(x) for x in inputs):
        return None
    place = gpu.device
    return tuple(run(ToDevice(place), (x,)) if _is_cpu_scalar(x) else x for x in inputs)


def _is_cpu_scalar(x: Any) -> bool:
    return isinstance(x, Tensor) and type(x._array) is np.ndarray and x._array.ndim == 0


def _where(array: Any) -> str:
    from dtrain.backend.device import device_of

    return str(device_of(array))


def explain(op: Op, xp: Any, arrays: list, error: Exception) -> DtrainError:
    """An array library's error as one of ours, with the operation and the operands' shapes and dtypes."""
    namespace_of(arrays)
    what = ", ".join(f"{tuple(a.shape)} {a.dtype}" if hasattr(a, "shape") else repr(a) for a in arrays)
    kind = IndexRangeError if isinstance(error, IndexError) else ShapeError
    if isinstance(error, TypeError):
        kind = DtypeError
    return kind(f"{op.name().lower()} cannot take ({what}): {error}")


__all__ = ["apply", "apply_", "run", "announce", "Cast", "ToDevice"]
