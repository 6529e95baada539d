"""Tracing: a model runs once, and a mode at the dispatch point writes down every operation.

To know which sizes are dynamic the model first runs at two sizes of each dynamic axis. A size that differs between the
runs is dynamic; in the recorded run it then is a ``Dim``. A number in an operation's settings that differs but is no Dim
was computed in a way the trace cannot follow: that is an error, not a wrong model.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator

from dtrain.autograd.dispatch import InPlace
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.state import local
from dtrain.errors import UnsupportedError
from dtrain.onnx.sizes import Dim, is_dynamic


class TracedTensor(Tensor):
    """A tensor of the recorded run: its dynamic sizes are Dims, and its values must not steer Python."""

    __slots__ = ()

    @property
    def shape(self) -> tuple:  # type: ignore[override]
        axes = self.__dict__.get("_dynamic", ())
        return tuple(Dim(n, ("dim", self, i)) if i in axes else n for i, n in enumerate(self._array.shape))

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def item(self) -> Any:
        raise UnsupportedError(
            "the model reads a tensor's value in Python (item(), bool() or float()), which an exported graph cannot do; "
            "use dtrain.where or another tensor operation"
        )

    def __bool__(self) -> bool:
        return self.item()


class Step:
    """One recorded operation: its settings as they were before it ran, and the tensors that went in and came out."""

    def __init__(self, op: Any, settings: dict, inputs: tuple, outputs: tuple) -> None:
        self.op, self.settings, self.inputs, self.outputs = op, settings, inputs, outputs

    @property
    def name(self) -> str:
        return self.op.name() if isinstance(self.op, Created) else type(self.op).__name__


class Created(Op):
    """A tensor made from sizes alone: ``function`` is zeros, ones, full, empty, eye or arange."""

    differentiable = False

    def __init__(self, function: str, **settings: Any) -> None:
        self.function = function
        self.__dict__.update(settings)

    def name(self) -> str:  # type: ignore[override]
        return "Created"


class Tracer:
    """The mode. ``dynamic`` gives, per step and output, the dynamic axes; None in the probing runs."""

    def __init__(self, dynamic: list | None = None) -> None:
        self.dynamic = dynamic
        self.steps: list[Step] = []

    def __call__(self, op: Op, inputs: tuple, proceed: Callable) -> Any:
        if isinstance(op, InPlace):
            return self._in_place(op, inputs, proceed)
        settings = {k: v for k, v in vars(op).items()}
        out = proceed(op, inputs)
        outputs = out if isinstance(out, tuple) else (out,)
        self._note(op, settings, inputs, outputs)
        return out

    def created(self, function: str, tensor: Tensor, settings: dict) -> None:
        """A tensor that was made from sizes."""
        self._note(Created(function, **settings), settings, (), (tensor,))

    def _in_place(self, op: InPlace, inputs: tuple, proceed: Callable) -> Any:
        target = inputs[0]
        if target._base is not None:
            raise UnsupportedError(f"{op.name()} writes into a view, which ONNX has no counterpart for; use an out-of-place form")
        before = Tensor._wrap(target._array.copy())
        before.__class__ = type(target)
        before.__dict__.update(target.__dict__)
        settings = {k: v for k, v in vars(op.op).items()}
        self.steps.append(Step("alias", {}, (target,), (before,)))
        proceed(op, inputs)
        self._note(op.op, settings, (before, *inputs[1:]), (target,))
        return target

    def _note(self, op: Any, settings: dict, inputs: tuple, outputs: tuple) -> None:
        number = len(self.steps)
        for i, tensor in enumerate(outputs):
            if not isinstance(tensor, TracedTensor):
                tensor.__class__ = TracedTensor
            if self.dynamic is not None:
                tensor._dynamic = self.dynamic[number][i]
        self.steps.append(Step(op, settings, inputs, outputs))

    @contextmanager
    def on(self) -> Iterator["Tracer"]:
        before, local.modes = local.modes, [*local.modes, self]
        grad, local.grad_enabled = local.grad_enabled, False
        try:
            yield self
        finally:
            local.modes, local.grad_enabled = before, grad


def trace(model: Callable, args: tuple, axes: list[dict[int, str]]) -> tuple[list[Step], tuple, tuple]:
    """Run ``model`` on ``args`` and return its steps, the traced inputs and the outputs.

    ``axes`` gives for every tensor in ``args`` its dynamic axes and their names.
    """
    if not any(axes):
        return _run(model, args, axes, Tracer())
    small, _, small_out = _run(model, args, axes, Tracer())
    large, _, large_out = _run(model, _grown(args, axes), axes, Tracer())
    _check_same(small, large)
    dynamic = [[_differing(a, b) for a, b in zip(s.outputs, t.outputs)] for s, t in zip(small, large)]
    steps, inputs, outputs = _run(model, args, axes, Tracer(dynamic))
    for step, other in zip(steps, large):
        _check_settings(step, other)
    return steps, inputs, outputs


def _run(model: Callable, args: tuple, axes: list, tracer: Tracer) -> tuple[list[Step], tuple, tuple]:
    inputs = tuple(_traced(a, ax if tracer.dynamic is not None else {}) for a, ax in zip(args, axes))
    with tracer.on():
        out = model(*inputs)
    return tracer.steps, inputs, flatten(out)


def _traced(tensor: Tensor, axes: dict) -> TracedTensor:
    out = Tensor._wrap(tensor._array)
    out.__class__ = TracedTensor
    out._dynamic = tuple(axes)  # type: ignore[attr-defined]
    return out  # type: ignore[return-value]


def flatten(out: Any) -> tuple:
    """The tensors of a model's output, in order."""
    if isinstance(out, Tensor):
        return (out,)
    values = out.values() if isinstance(out, dict) else out
    return tuple(t for v in values for t in flatten(v))


def _grown(args: tuple, axes: list) -> tuple:
    """The arguments one larger along every dynamic axis; axes of one name grow alike. Values repeat from the start."""
    from dtrain.backend import namespace

    out = []
    for tensor, dynamic in zip(args, axes):
        array = tensor._array
        xp = namespace.of(array)
        for axis in dynamic:
            first = array[(slice(None),) * axis + (slice(0, 1),)]
            array = xp.concatenate([array, first], axis=axis)
        out.append(Tensor._wrap(array))
    return tuple(out)


def _differing(a: Tensor, b: Tensor) -> tuple:
    return tuple(i for i, (m, n) in enumerate(zip(a._array.shape, b._array.shape)) if m != n)


def _check_same(small: list[Step], large: list[Step]) -> None:
    for s, t in zip(small, large):
        if s.op.__class__ is not t.op.__class__:
            raise UnsupportedError(
                f"the model runs {s.name} at one size and {t.name} at another: its control flow depends on a dynamic axis"
            )
    if len(small) != len(large):
        raise UnsupportedError(
            f"the model runs {len(small)} operations at one size and {len(large)} at another: a Python loop depends on a dynamic axis"
        )


def _check_settings(step: Step, other: Step) -> None:
    """A setting that changes with the size must be a Dim in the recorded run."""
    for key, value in step.settings.items():
        theirs = other.settings.get(key)
        if _plain(value) != _plain(theirs) and not is_dynamic(value):
            raise UnsupportedError(
                f"{step.name} has {key}={value!r} at one size and {theirs!r} at another, and the trace cannot tell how it follows "
                "from the input's shape; compute it from x.shape with + - * // only"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_plain(v) for v in value)
    if isinstance(value, slice):
        return _plain((value.start, value.stop, value.step))
    return int(value) if isinstance(value, int) else value if isinstance(value, (float, str)) else None
