"""Tracing: a model runs, and a mode at the dispatch point hands every operation to a sink, which builds the graph.

The model runs several times under the tracer, at other sizes of the dynamic axes and with other values before the recorded
run. A size that differs between the runs is dynamic: in the recorded run it is a ``Dim``, which knows its other values too.
Every other number or constant must be the same in all runs; one that is not was computed in a way the trace cannot follow
(through NumPy, from a tensor's values, at random). That is an error, at the line of the model that does it, not a wrong model.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator
from weakref import ref

import numpy as np

from dtrain.autograd.dispatch import InPlace
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend.state import local
from dtrain.errors import UnsupportedError
from dtrain.onnx.sizes import Dim, other_value, plain
from dtrain.ops.index import Slice
from dtrain.ops.shape import Expand, Reshape


class TracedTensor(Tensor):
    """A tensor of a traced run: its dynamic sizes are Dims, and its values must not leave dtrain's operations.

    ``_others`` are its shapes in the runs at other sizes (none in those themselves), ``_at`` is its version when it was made.
    """

    __slots__ = ()

    @property
    def shape(self) -> tuple:  # type: ignore[override]
        shape, others = self._array.shape, self._others
        if all(other == shape for other in others):
            return shape
        return tuple([n if all(m == n for m in ms) else Dim(n, ms, ("dim", self, i)) for i, (n, *ms) in enumerate(zip(shape, *others))])

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        count = 1
        for n in self.shape:
            count = count * n
        return count

    nelement = numel

    def detach(self) -> Tensor:
        out = super().detach()
        _active().note(Alias("detach"), {}, (self,), (out,))
        return out

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self._leaves("data = ...")

    def _leaves(self, how: str) -> Any:
        raise UnsupportedError(
            f"the model reads a tensor's values in Python ({how}), which an exported graph cannot do: a choice by value "
            "becomes dtrain.where, a number stays a 0-dim tensor, a size comes from x.shape"
        )

    def item(self) -> Any:
        return self._leaves("item(), bool(), int(), float() or as an index")

    def tolist(self) -> Any:
        return self._leaves("tolist()")

    def numpy(self, *, force: bool = False) -> Any:
        return self._leaves("as a NumPy array")

    def __bool__(self) -> bool:
        return self._leaves("bool(), as in if, while, and, or")

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._leaves("DLPack")

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.clone()  # type: ignore[attr-defined]


class Step:
    """One operation of a run: its settings as they were before it ran, and the tensors that went in and came out."""

    def __init__(self, op: Op, settings: dict, inputs: tuple, outputs: tuple) -> None:
        self.op, self.settings, self.inputs, self.outputs = op, settings, inputs, outputs
        self.traced = [isinstance(x, TracedTensor) for x in inputs]
        self.shapes = [t._array.shape for t in outputs]

    @property
    def name(self) -> str:
        return type(self.op).__name__

    def forget(self) -> None:
        """Let go of all tensors but the constants, of which a later write may not change the values kept here."""
        self.inputs = tuple([None if traced else Constant(x._array) if isinstance(x, Tensor) else x for x, traced in zip(self.inputs, self.traced)])
        self.outputs = ()


class Constant:
    """A tensor that a step of an earlier run took and that no step made: which array, and what was in it."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.values = array.copy() if array.nbytes <= _COPIED else array

    def equals(self, array: Any) -> bool:
        if array is self.array:
            return True
        return array.shape == self.array.shape and array.dtype == self.array.dtype and _bytes(array) == _bytes(self.values)


def _bytes(array: Any) -> bytes:
    return np.ascontiguousarray(Tensor._wrap(array).cpu()._array).tobytes()  # type: ignore[attr-defined]


class Created(Op):
    """A tensor made from sizes alone: ``function`` is zeros, ones, full, empty, eye or arange."""

    def __init__(self, function: str) -> None:
        self.function = function


class Alias(Op):
    """Another tensor object of the same value."""

    def __init__(self, why: str) -> None:
        self.why = why


SIZED = (Slice, Reshape, Expand)  # their settings may follow from a traced size, so that the part of a constant that they take is none
_UNKNOWN = "something else"
_COPIED = 1 << 20  # bytes; larger constants are remembered without a copy
Sink = Callable[[Step], None]


class Tracer:
    """The mode. ``earlier`` are the steps of the runs at other sizes; ``sink`` gets every step of the recorded run."""

    def __init__(self, earlier: list[list[Step]] | None = None, sink: Sink | None = None) -> None:
        self.earlier, self.sink = earlier or [], sink
        self.steps: list[Step] = []
        self.traced: list[ref] = []

    def __call__(self, op: Op, inputs: tuple, proceed: Callable) -> Any:
        written = isinstance(op, InPlace)
        numbers = plain(inputs)
        if not any(isinstance(x, (TracedTensor, Dim)) for x in inputs) and not isinstance(op, SIZED):
            return proceed(op, numbers)  # made of constants alone: a constant
        check_fresh(op.name(), inputs)
        if written:
            return self._in_place(op, inputs, lambda: proceed(op, numbers))
        settings = _taken(op)
        out = proceed(op, numbers)
        self.note(op, settings, inputs, out if isinstance(out, tuple) else (out,))
        return out

    def created(self, function: str, tensor: Tensor, settings: dict) -> None:
        """A tensor that was made from sizes."""
        self.note(Created(function), {"function": function, **settings}, (), (tensor,))

    def _in_place(self, op: InPlace, inputs: tuple, proceed: Callable) -> Any:
        target = inputs[0]
        if target._base is not None:
            raise UnsupportedError(
                f"{op.name()} writes into a view (made by {target._chain[-1].name().lower() if target._chain else 'slicing'}), which ONNX "
                "has no counterpart for; use the out-of-place form, dtrain.where or dtrain.cat"
            )
        before = Tensor._wrap(target._array if isinstance(target, TracedTensor) else target._array.copy())
        self.note(Alias(op.name()), {}, (target,), (before,))
        settings = _taken(op.op)
        proceed()
        self.note(op.op, settings, (before, *inputs[1:]), (target,))
        return target

    def note(self, op: Op, settings: dict, inputs: tuple, outputs: tuple) -> None:
        """One operation was run: compare it with the other runs, mark its outputs, hand it on."""
        step = Step(op, settings, inputs, outputs)
        theirs = [_matching(earlier, run, len(self.steps), step) for run, earlier in enumerate(self.earlier)]
        self.steps.append(step)
        for i, tensor in enumerate(outputs):
            self.mark(tensor, [other.shapes[i] for other in theirs])
        if self.sink is not None:
            self.sink(step)
        else:
            step.forget()

    def mark(self, tensor: Tensor, others: list[tuple]) -> None:
        """Make ``tensor`` a TracedTensor, with its shapes at the other sizes."""
        tensor.__class__ = TracedTensor
        tensor._others, tensor._at = others, tensor._vc[0]
        self.traced.append(ref(tensor))

    def finished(self) -> None:
        """At the end of the recorded run: the others may not have had more steps."""
        count = len(self.steps)
        for earlier in self.earlier:
            if len(earlier) > count:
                raise _differs(f"it ends after {count} operations", f"goes on with {earlier[count].name}")

    @contextmanager
    def on(self) -> Iterator["Tracer"]:
        """Trace this thread's operations; at the end every traced tensor is a plain Tensor again, wherever the model kept it."""
        before, grad = local.modes, local.grad_enabled
        local.modes, local.grad_enabled = [self, *before], False  # innermost: what autocast makes of an operation is what is traced
        try:
            yield self
        finally:
            local.modes, local.grad_enabled = before, grad
            for reference in self.traced:
                _release(reference())


def _release(tensor: Tensor | None) -> None:
    if tensor is not None:
        tensor.__class__ = Tensor
        for name in ("_others", "_at"):
            tensor.__dict__.pop(name, None)


def _taken(op: Op) -> dict:
    """The settings of an operation, which itself gets plain numbers to compute with: NumPy would promote by another int type."""
    settings = dict(vars(op))
    vars(op).update((name, plain(value)) for name, value in settings.items())
    return settings


def _active() -> Tracer:
    return next(mode for mode in local.modes if isinstance(mode, Tracer))


def check_fresh(what: str, tensors: tuple) -> None:
    """Raise UnsupportedError if a tensor's memory was written to since it was traced: its name in the graph is the old value's."""
    for x in tensors:
        if isinstance(x, TracedTensor) and x._at != x._vc[0]:
            raise UnsupportedError(
                f"{what} reads a tensor of shape {tuple(x._array.shape)} whose memory was written to through another tensor since it "
                "was made (it is a view or a detach()); make the view after the write, or use the out-of-place form"
            )


def _matching(earlier: list[Step], run: int, number: int, step: Step) -> Step:
    """The step of an earlier run that corresponds to ``step``. Raises UnsupportedError if it is another operation."""
    if number >= len(earlier):
        raise _differs(f"it goes on with {step.name}", f"ends after {len(earlier)} operations")
    theirs = earlier[number]
    if type(theirs.op) is not type(step.op) or len(theirs.inputs) != len(step.inputs):
        raise _differs(f"it runs {step.name}", f"runs {theirs.name}")
    for key, value in step.settings.items():
        ours, other = _comparable(value), _comparable(theirs.settings.get(key))
        if other_value(ours, run) != other and _UNKNOWN not in (ours, other):
            raise _unknown_number(f"{step.name} has {key}={value!r} at one size and {theirs.settings.get(key)!r} at another")
    if theirs.traced != step.traced:
        raise _differs(f"{step.name} takes {_kinds(step)}", f"takes {_kinds(theirs)}")
    for x, y in zip(step.inputs, theirs.inputs):
        if not isinstance(x, Tensor):
            if _comparable(other_value(x, run)) != _comparable(y):
                raise _unknown_number(f"{step.name} takes the number {x!r} at one size and {y!r} at another")
        elif not isinstance(x, TracedTensor):
            _check_constant(step, x, y)
    return theirs


def _check_constant(step: Step, x: Tensor, y: Any) -> None:
    if not isinstance(y, Constant):
        raise _differs(f"{step.name} takes a tensor", f"takes {y!r}")
    if not y.equals(x._array):
        raise UnsupportedError(
            f"{step.name} takes a tensor of shape {tuple(x._array.shape)} that is no result of traced operations, and which differs from one run "
            "of the model to the next: it holds random numbers, or was made outside dtrain's operations from an input's values or sizes"
        )


def _kinds(step: Step) -> str:
    return "results and constants as " + "".join("r" if traced else "c" for traced in step.traced)


def _differs(ours: str, theirs: str) -> UnsupportedError:
    return UnsupportedError(
        f"the model's control flow depends on a dynamic axis or on an input's values: here {ours}, while in a run at other sizes "
        f"and values it {theirs}. Only one way can be exported"
    )


def _unknown_number(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what}, and the trace cannot tell how it follows from the input's shape; compute sizes from x.shape with + - * // % "
        "only, and from tensors' values not at all"
    )


def _comparable(value: Any) -> Any:
    """What must agree between the runs: numbers, strings and nested sequences of them, windows' geometry; _UNKNOWN for the rest."""
    if isinstance(value, (tuple, list)):
        return tuple([_comparable(v) for v in value])
    if isinstance(value, float) and value != value:
        return "nan"
    if isinstance(value, slice):
        return slice, _comparable(value.start), _comparable(value.stop), _comparable(value.step)
    if value is None or value is Ellipsis or isinstance(value, (int, float, complex, str, np.generic)):
        return value
    if hasattr(value, "kernel"):
        return tuple([_comparable(getattr(value, name)) for name in ("kernel", "stride", "padding", "dilation")])
    return _UNKNOWN
