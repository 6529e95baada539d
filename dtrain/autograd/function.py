"""Users' own differentiable functions, as in PyTorch: static ``forward`` and ``backward`` with a context."""

from __future__ import annotations

from typing import Any

from dtrain.autograd import dispatch
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.backend.state import local
from dtrain.errors import GraphError


class FunctionCtx:
    """What ``forward`` hands to ``backward``; other attributes may be set freely."""

    def __init__(self) -> None:
        self._saved: tuple = ()
        self._non_differentiable: set[int] = set()
        self._dirty: tuple = ()
        self._materialize = True
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs or outputs for ``saved_tensors``; in-place changes to them are noticed."""
        self._saved = tensors

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        self._non_differentiable = {id(t) for t in outputs}

    def mark_dirty(self, *inputs: Tensor) -> None:
        """Say which inputs ``forward`` modified in place; they must be returned."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether outputs without a gradient give zeros (the default) or None to ``backward``."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple:
        return self._node.unpack_tensors()


class FunctionNode(Op):
    """The graph node of one call of a Function."""

    def __init__(self, function: type, ctx: FunctionCtx) -> None:
        self.function, self.ctx = function, ctx

    def name(self) -> str:  # type: ignore[override]
        return self.function.__name__ + "Backward"

    def seal(self, outs: tuple) -> None:
        """Keep what was saved without referring to the outputs, which refer to this node."""
        entries = []
        for tensor in self.ctx._saved:
            port = next((i for i, out in enumerate(outs) if out is tensor), None)
            if tensor is None or port is None:
                entries.append((tensor, None, None if tensor is None else (tensor._vc, tensor._vc[0])))
            else:
                entries.append((tensor._array, port, (tensor._vc, tensor._vc[0])))
        self.entries = entries
        self.ctx._saved = ()

    def unpack_tensors(self) -> tuple:
        super().unpack(namespace.numpy)
        out = []
        for value, port, version in self.entries:
            if version is not None and version[0][0] != version[1]:
                raise GraphError(f"a tensor saved by {self.name()} was modified in place after it was saved")
            out.append(value if port is None else self._output(value, port))
        return tuple(out)

    def _output(self, array: Any, port: int) -> Tensor:
        tensor = Tensor._wrap(array)
        tensor._node, tensor._port, tensor._rg = self, port, True
        return tensor

    def release(self) -> None:
        super().release()
        self.entries = []

    def backward(self, xp: Any, *grads: Any) -> tuple:
        wrapped = [g if g is None or isinstance(g, Tensor) else Tensor._wrap(g) for g in grads]
        self.ctx._node = self
        try:
            out = self.function.backward(self.ctx, *wrapped)  # type: ignore[attr-defined]
        finally:
            del self.ctx._node
        out = out if isinstance(out, tuple) else (out,)
        if len(out) != len(self.edges):
            raise GraphError(
                f"{self.function.__name__}.backward returned {len(out)} gradients, but forward took {len(self.edges)} inputs; "
                "return one per input, None where there is none"
            )
        return tuple(g if xp.builds_graph or g is None else g._array for g in out)


class Function:
    """Subclass with static ``forward(ctx, *args)`` and ``backward(ctx, *grads)``; call with ``apply``.

    The newer split ``forward(*args)`` plus ``setup_context(ctx, inputs, output)`` works too.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise GraphError("a Function needs a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise GraphError("a Function needs a static backward(ctx, *grads) to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._rg for a in args)
        before, local.grad_enabled = local.grad_enabled, False
        try:
            if "setup_context" in {name for kind in cls.__mro__ for name in vars(kind)}:
                out = cls.forward(*args)
                cls.setup_context(ctx, args, out)  # type: ignore[attr-defined]
            else:
                out = cls.forward(ctx, *args)
        finally:
            local.grad_enabled = before
        if not (before and any(ctx.needs_input_grad)):
            return out
        return _connect(FunctionNode(cls, ctx), ctx, args, out)


def _connect(node: FunctionNode, ctx: FunctionCtx, args: tuple, out: Any) -> Any:
    """Put the call into the graph: outputs lead to ``node``, ``node`` to the inputs."""
    single = not isinstance(out, (tuple, list))
    outs = tuple(_distinct(t, args, ctx) for t in ((out,) if single else out))
    tensors = tuple(t for t in outs if isinstance(t, Tensor))
    node.num_outputs = len(tensors)
    dispatch.record(node, args, [getattr(a, "_array", a) for a in args], ())
    if node.num_outputs > 1:
        node.outputs = tuple((t.shape, t._array.dtype, namespace.of(t._array)) for t in tensors) if ctx._materialize else ()
        node.outputs = node.outputs or _Unmaterialized(len(tensors))
    for port, tensor in enumerate(tensors):
        if id(tensor) not in ctx._non_differentiable and tensor._array.dtype.kind in "fcV":
            tensor._node, tensor._port, tensor._rg = node, port, True
    node.seal(tensors)
    return outs[0] if single else outs


def _distinct(out: Any, args: tuple, ctx: FunctionCtx) -> Any:
    """An input returned unchanged becomes a tensor of its own, unless it was marked dirty."""
    if isinstance(out, Tensor) and any(out is a for a in args) and not any(out is d for d in ctx._dirty):
        return out.detach()
    return out


class _Unmaterialized(tuple):
    """Stands for outputs whose missing gradients stay None."""

    def __new__(cls, count: int) -> "_Unmaterialized":
        return tuple.__new__(cls, [None] * count)


def once_differentiable(backward: Any) -> Any:
    """Decorator of a ``backward`` that cannot be differentiated again: its results carry no graph."""

    def call(ctx: Any, *grads: Any) -> Any:
        before, local.grad_enabled = local.grad_enabled, False
        try:
            return backward(ctx, *grads)
        finally:
            local.grad_enabled = before

    return call
