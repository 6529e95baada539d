"""Views and in-place writes in the graph.

A view remembers its base and the operations that lead there. When something is written into a view, the base's history
becomes "the old base with that region replaced" (``WriteRegion``), and every view of that base finds by the version
counter that its own history is stale and makes it anew from the base. Nothing points from a base to its views, so no cycles.
"""

from __future__ import annotations

from typing import Any

from dtrain.autograd.op import Op, _order
from dtrain.autograd.tensor import Tensor
from dtrain.backend.state import local
from dtrain.errors import GraphError, ShapeError


def link(op: Op, source: Tensor, out: Tensor) -> None:
    """Make ``out`` a view of ``source``'s base, if it does share its memory."""
    if not shares(source._array, out._array):
        return
    out._vc = source._vc
    base = source._base
    if base is None:
        out._base, out._chain = source, (op,)
    else:
        out._base, out._chain = base, (*source._chain, op)
    out._seen = out._vc[0]
    if out._node is None and source._rg and not local.grad_enabled:
        out._chain = None


def shares(a: Any, b: Any) -> bool:
    """Whether array ``b``, just made from ``a``, is a view of ``a``'s memory."""
    owner = getattr(b, "base", None)
    return owner is not None and (owner is a or owner is a.base)


def check_writable(op: Op, target: Tensor) -> None:
    """Refuse in-place writes that autograd cannot follow. Called in grad mode only."""
    base = target if target._base is None else target._base
    if base._rg and base._node is None:
        what = "a leaf tensor" if target._base is None else "a view of a leaf tensor"
        raise GraphError(
            f"{op.name().lower()}_ would modify {what} that requires grad (shape {tuple(base._array.shape)}) in place; "
            "wrap it in dtrain.no_grad() to change values, or use the out-of-place form to build a graph"
        )
    if target._base is not None and target._chain is None:
        raise GraphError(
            f"{op.name().lower()}_ would modify a view that was made under no_grad, of a tensor that requires grad; "
            "make the view outside no_grad, or do the write under no_grad too"
        )


def check_memory(op: Op, memory: Any) -> None:
    """Refuse to write where several elements share one place, or where memory is read-only."""
    if any(step == 0 and n > 1 for step, n in zip(memory.strides, memory.shape)):
        raise ShapeError(
            f"{op.name().lower()}_ would write into an expanded tensor of shape {tuple(memory.shape)}, whose elements share memory; .clone() it first"
        )
    if not getattr(memory.flags, "writeable", True):
        raise GraphError(
            f"{op.name().lower()}_ would write into read-only memory (shape {tuple(memory.shape)}), that of an expanded tensor or of a read-only "
            "NumPy array; .clone() it first"
        )


def rebase(target: Tensor, value: Tensor) -> None:
    """After ``value`` was written into ``target``: give the target, and its base if it is a view, the new history."""
    base = target._base
    if base is None:
        target._node, target._port, target._rg = value._node, value._port, value._rg
        return
    if not (value._rg or base._rg):
        return
    node = WriteRegion(target._chain, base._array.shape)
    node.edges = [base._node if base._rg else None, value._node if value._rg else None]
    node.ports = [base._port, value._port]
    node.order = next(_order)
    base._node, base._port, base._rg = node, 0, True
    target._seen = -1
    target._rg = True


def refresh(view: Tensor) -> None:
    """Make a view's history anew when its base was written to since."""
    base = view._base
    if view._seen == view._vc[0] or view._chain is None:
        return
    view._seen = view._vc[0]
    if base._node is None:
        return
    edge, port = base._node, base._port
    for op in view._chain:
        node = op.fresh()
        node.edges, node.ports, node.order = [edge], [port] if port else None, next(_order)
        edge, port = node, 0
    view._node, view._port, view._rg = edge, 0, True


def awakened(view: Tensor) -> bool:
    """Whether a view that was made of a tensor without history has one now, since something with history was written into its base."""
    if view._chain is not None and view._base._rg and not view._rg:
        refresh(view)
    return view._rg


def through(xp: Any, chain: tuple, x: Any) -> Any:
    """The view that ``chain`` makes of ``x``."""
    for op in chain:
        x = xp.run(op.fresh(), x)
    return x


class WriteRegion(Op):
    """base with the region of a view replaced by new values."""

    def __init__(self, chain: tuple, shape: tuple) -> None:
        self.chain, self.shape = tuple(op.fresh() for op in chain), shape

    def backward(self, xp: Any, g: Any) -> Any:
        to_base = xp.run(ClearRegion(self.chain), g) if self.needs(0) else None
        return to_base, through(xp, self.chain, g) if self.needs(1) else None


class ClearRegion(Op):
    """x with the region of a view set to zero."""

    half_as_float = False

    def __init__(self, chain: tuple) -> None:
        self.chain = chain

    def forward(self, xp: Any, x: Any) -> Any:
        out = x.copy()
        through(xp, self.chain, out)[...] = 0
        return out

    def backward(self, xp: Any, g: Any) -> Any:
        return (xp.run(ClearRegion(self.chain), g),)
