"""The backward engine: one pass to collect the graph, one loop over its nodes from last made to first.

A node is always made after the nodes it leads to, so the order of creation is a topological order and no queue is
needed. Leaves count the edges that still owe them a gradient; when the last has come the leaf's ``.grad`` is written
and its post-accumulate hooks run, while the rest of the backward goes on.
"""

from __future__ import annotations

from operator import attrgetter
from sys import getrefcount
from typing import Any, Callable, Sequence

import numpy as np

from dtrain.autograd import hooks
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor
from dtrain.backend import cuda_guard, namespace
from dtrain.backend.state import local
from dtrain.errors import DtypeError, GraphError, ShapeError

_by_order = attrgetter("order")
_by_type = namespace.by_type
_ONE = np.ones((), np.float32)  # the usual seed; the engine copies what it does not own, so nobody writes into it
_ONE.flags.writeable = False
tensor_namespace: Any = None  # set by ops: the namespace of Tensor operations, for graphs of the backward


def backward(
    tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add the gradients of ``tensors`` to ``.grad`` of the leaves (or of ``inputs`` only)."""
    roots, grads = _roots(tensors, grad_tensors, create_graph)
    wanted = _as_list(inputs) if inputs is not None else None
    if wanted is not None and not wanted:
        raise GraphError("inputs must not be empty; leave it out to reach all leaves")
    run(roots, grads, create_graph if retain_graph is None else retain_graph, create_graph, wanted, True)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs`` (a tuple, in their order), leaving ``.grad`` alone.

    Raises GraphError for an input the outputs do not depend on, unless ``allow_unused`` (then its gradient is None).
    """
    if is_grads_batched:
        raise GraphError("is_grads_batched is not supported; loop over grad_outputs")
    roots, grads = _roots(outputs, grad_outputs, create_graph)
    wanted = _as_list(inputs)
    for i, tensor in enumerate(wanted):
        if not tensor._rg:
            raise GraphError(f"input {i} (shape {tuple(tensor.shape)}) does not require grad; call requires_grad_() before it is used")
    found = run(roots, grads, create_graph if retain_graph is None else retain_graph, create_graph, wanted, False)
    out = []
    for i, (tensor, g) in enumerate(zip(wanted, found)):
        if g is None and materialize_grads:
            g = Tensor._wrap(namespace.of(tensor._array).zeros_like(tensor._array))
        if g is None and not allow_unused:
            raise GraphError(
                f"input {i} (shape {tuple(tensor.shape)}) was not used to compute the outputs; pass allow_unused=True to get None for it"
            )
        out.append(g)
    return tuple(out)


def _as_list(value: Any) -> list:
    return [value] if isinstance(value, Tensor) else list(value)


def _roots(tensors: Any, grads: Any, create: bool) -> tuple[list, list]:
    roots = _as_list(tensors)
    given = [None] * len(roots) if grads is None else ([grads] if isinstance(grads, Tensor) else list(grads))
    if len(given) != len(roots):
        raise GraphError(f"got {len(roots)} outputs but {len(given)} gradients for them")
    return roots, [_seed(t, g, create) for t, g in zip(roots, given)]


def _seed(root: Tensor, g: Any, create: bool) -> Any:
    """The gradient a backward starts with: a raw array, or a Tensor when a graph is built."""
    array = root._array
    if not root.requires_grad:
        raise GraphError(
            f"a tensor of shape {tuple(array.shape)} has no graph to go back through: nothing it was computed from requires grad, "
            "or it was computed under no_grad, or detached"
        )
    if g is None:
        if array.size != 1:
            raise GraphError(
                f"backward() of a tensor of shape {tuple(array.shape)} needs a gradient argument of that shape; "
                "only a one-element tensor (a loss) has an implicit one. Reduce with .mean() or .sum() first?"
            )
        ones = _ONE if array.dtype is _ONE.dtype and type(array) is np.ndarray and not array.ndim else namespace.of(array).ones_like(array)
        return Tensor._wrap(ones) if create else ones
    g = g if isinstance(g, Tensor) else Tensor._wrap(namespace.of(array).asarray(g))
    if g.shape != root.shape:
        raise ShapeError(f"gradient of shape {tuple(g.shape)} given for a tensor of shape {tuple(root.shape)}")
    if g._array.dtype != array.dtype:
        raise DtypeError(f"gradient of {g.dtype} given for a tensor of {root.dtype}")
    return g if create else g._array


def run(roots: Sequence[Tensor], seeds: list, retain: bool, create: bool, wanted: list | None, accumulate: bool) -> list:
    state = local
    enabled, modes, outer = state.grad_enabled, state.modes, state.after_backward
    state.grad_enabled = create
    if not create and modes:
        state.modes = []
    calls = state.after_backward = [] if outer is None else outer
    try:
        found = Pass(retain, create, wanted, accumulate).run(roots, seeds)
    finally:
        state.grad_enabled, state.modes, state.after_backward = enabled, modes, outer
    if outer is None:
        for call in calls:
            call()
    return found


def after_backward(call: Callable[[], None]) -> None:
    """From a hook: run ``call`` once the (outermost) backward pass under way in this thread has succeeded."""
    if local.after_backward is None:
        raise GraphError("no backward pass is under way in this thread")
    local.after_backward.append(call)


def reachable_leaves(tensors: Sequence[Tensor]) -> set[Tensor]:
    """The leaves that a backward from ``tensors`` would reach."""
    walk = Pass(True, False, None, True)
    walk.collect([t for t in tensors if t._rg])
    return set(walk.due)


class Pass:
    """One backward pass: its buffers, and what it does when a gradient is complete."""

    __slots__ = ("retain", "create", "wanted", "accumulate", "buffers", "due", "sums", "captured")

    def __init__(self, retain: bool, create: bool, wanted: list | None, accumulate: bool) -> None:
        self.retain, self.create, self.accumulate = retain, create, accumulate
        self.wanted = wanted
        self.buffers: dict[Op, Any] = {}
        self.due: dict[Tensor, int] = {}  # leaf -> edges that still owe it a gradient
        self.sums: dict[Tensor, Any] = {}
        self.captured: dict[Any, Any] = {}

    def run(self, roots: Sequence[Tensor], seeds: list) -> list:
        nodes = self.collect(roots)
        captures = self._captures() if self.wanted is not None else None
        if captures is not None:
            nodes = self._needed(nodes, captures, roots)
        for root, seed in zip(roots, seeds):
            self.send(root.grad_fn or root, root._port, seed)
        for node in nodes:
            self.step(node, captures)
        return self._results(captures) if captures is not None else []

    def collect(self, roots: Sequence[Tensor]) -> list[Op]:
        """All nodes below the roots, last made first; counts the edges into every leaf."""
        due = self.due
        seen = set()
        stack = []
        for root in roots:
            node = root.grad_fn
            if node is None:
                due[root] = due.get(root, 0) + 1
            elif node not in seen:
                seen.add(node)
                stack.append(node)
        while stack:
            for edge in stack.pop().edges:
                if edge is None:
                    continue
                if isinstance(edge, Op):
                    if edge not in seen:
                        seen.add(edge)
                        stack.append(edge)
                else:
                    due[edge] = due.get(edge, 0) + 1
        return sorted(seen, key=_by_order, reverse=True)

    def step(self, node: Op, captures: dict | None) -> None:
        g = self.buffers.pop(node, None)
        if g is None:
            self._skip(node)
            return
        if node.hooks is not None:
            g = self._hooked(node, g)
        if captures is not None and node in captures:
            self._capture(node, g, captures[node])
            if not captures[node]["through"]:
                return
        grads = self.differentiate(node, g)
        if grads.__class__ is not tuple:
            grads = (grads,)
        ports = node.ports
        buffers = self.buffers
        i = 0
        for edge in node.edges:
            if edge is not None:
                if not isinstance(edge, Op):
                    self._to_leaf(edge, grads[i])
                elif ports is not None or edge.num_outputs != 1:
                    self.send(edge, ports[i] if ports is not None else 0, grads[i])
                elif grads[i] is not None:
                    have = buffers.get(edge)
                    buffers[edge] = grads[i] if have is None else have + grads[i]
            i += 1
        if not self.retain:
            node.release()

    def differentiate(self, node: Op, g: Any) -> Any:
        if node.num_outputs != 1:
            g = self._filled(node, g)
            first = next(x for x in g if x is not None)
            xp = tensor_namespace if self.create else namespace.of(first)
            if xp.is_cuda:
                with cuda_guard([first]):
                    return node.backward(xp, *g)
            return node.backward(xp, *g)
        if self.create:
            return node.backward(tensor_namespace, g)
        xp = _by_type.get(g.__class__)
        if xp is None:  # a first CuPy array, or a scalar of NumPy's arithmetic on 0-dim arrays
            g = np.asarray(g) if isinstance(g, np.generic) else g
            xp = namespace.of(g)
        if xp.is_cuda:
            with cuda_guard([g]):
                return node.backward(xp, g)
        return node.backward(xp, g)

    def _filled(self, node: Op, gs: list) -> list:
        """Zeros for outputs no gradient came to."""
        out = list(gs)
        for port, entry in enumerate(node.outputs):
            if out[port] is None and entry is not None:
                shape, dtype, xp = entry
                zeros = xp.zeros(shape, dtype)
                out[port] = Tensor._wrap(zeros) if self.create else zeros
        return out

    def send(self, edge: Any, port: int, g: Any) -> None:
        """A gradient arrives at a node or a leaf."""
        if not isinstance(edge, Op):
            self._to_leaf(edge, g)
            return
        if g is None:
            return
        buffers = self.buffers
        if edge.num_outputs == 1:
            have = buffers.get(edge)
            buffers[edge] = g if have is None else have + g
            return
        slots = buffers.get(edge)
        if slots is None:
            slots = buffers[edge] = [None] * len(edge.outputs)
        slots[port] = g if slots[port] is None else slots[port] + g

    def _to_leaf(self, leaf: Tensor, g: Any) -> None:
        left = self.due[leaf] - 1
        self.due[leaf] = left
        have = self.sums.pop(leaf, None) if self.sums else None
        fresh = have is not None and g is not None
        if have is not None:
            g = have if g is None else have + g
        if g is None:
            return
        if left:
            self.sums[leaf] = g
        else:
            # A fresh array is referenced by the tuple of gradients, two frames and the count itself: others are copied.
            self.finish(leaf, g, fresh or (getrefcount(g) <= 4 and getattr(g, "base", None) is None))

    def _skip(self, node: Op) -> None:
        """No gradient came to this node: what it owes to leaves will not come either."""
        for edge in node.edges:
            if edge is not None and not isinstance(edge, Op):
                self._to_leaf(edge, None)

    def finish(self, leaf: Tensor, g: Any, own: bool) -> None:
        """All of a leaf's gradient is here: hooks, then ``.grad``, then the hooks that wait for it."""
        if isinstance(g, np.generic):
            g = np.asarray(g)
        more = leaf._more
        if more is not None and more.get("hooks"):
            g = hooks.run(more["hooks"], self._tensor(g))
            g, own = (g if self.create else g._array), False
        if self.wanted is not None and not any(leaf is t for t in self.wanted):
            return
        if not self.accumulate:
            self.captured[leaf] = self._tensor(g)
            return
        if self.create:
            leaf._grad = g if leaf._grad is None else leaf._grad + g
        else:
            self._write(leaf, g, own)
        if more is not None and more.get("post"):
            for hook in list(more["post"].values()):
                hook(leaf)

    def _write(self, leaf: Tensor, g: Any, own: bool) -> None:
        have = leaf._grad
        slot = leaf._more.get("slot") if leaf._more is not None else None
        if have is not None:
            if have._node is None and getattr(have._array.flags, "writeable", True):
                have._array += g
                have._vc[0] += 1
            else:
                leaf._grad = Tensor._wrap(have._array + g)
        elif slot is not None:
            namespace.of(slot).copyto(slot, g)
            leaf._grad = Tensor._wrap(slot)
        else:
            leaf._grad = Tensor._wrap(g if own else _own(g))

    def _tensor(self, g: Any) -> Tensor:
        return g if isinstance(g, Tensor) else Tensor._wrap(np.asarray(g) if isinstance(g, np.generic) else g)

    def _hooked(self, node: Op, g: Any) -> Any:
        single = node.num_outputs == 1
        slots = [g] if single else list(g)
        for port, table in node.hooks.items():
            if slots[port] is not None and table:
                out = hooks.run(table, self._tensor(slots[port]))
                slots[port] = out if self.create else out._array
        return slots[0] if single else slots

    # -- gradients of given inputs only -----------------------------------------------------------------------------
    def _captures(self) -> dict:
        """node -> {output number: positions in ``wanted``} for the wanted tensors that are not leaves."""
        captures: dict[Op, dict] = {}
        for tensor in self.wanted or ():
            node = tensor.grad_fn
            if node is not None:
                captures.setdefault(node, {}).setdefault(tensor._port, []).append(tensor)
        return captures

    def _needed(self, nodes: list[Op], captures: dict, roots: Sequence[Tensor]) -> list[Op]:
        """The nodes that lie on a way to a wanted tensor. The others are never run."""
        leaves = {t for t in self.wanted or () if t.grad_fn is None}
        needed: set[Op] = set()
        for node in reversed(nodes):  # first made first: what a node leads to is decided before it
            onward = any(edge is not None and (edge in needed or edge in captures or edge in leaves) for edge in node.edges)
            if node in captures:
                captures[node]["through"] = onward
            if onward or node in captures:
                needed.add(node)
        due = dict.fromkeys(self.due, 0)
        for node in needed:
            for edge in node.edges:
                if edge is not None and not isinstance(edge, Op):
                    due[edge] += 1
        for root in roots:
            if root.grad_fn is None:
                due[root] += 1
        self.due = due
        return [node for node in nodes if node in needed]

    def _capture(self, node: Op, g: Any, ports: dict) -> None:
        for port, tensors in ports.items():
            if port == "through":
                continue
            got = g if node.num_outputs == 1 else g[port]
            for tensor in tensors:
                if got is None:
                    continue
                if self.accumulate:
                    have = tensor._grad
                    tensor._grad = self._tensor(got) if have is None else have + self._tensor(got)
                else:
                    self.captured[tensor] = self._tensor(got)

    def _results(self, captures: dict) -> list:
        return [self.captured.get(t) for t in self.wanted or ()]


def _own(g: Any) -> Any:
    """A copy that nothing else refers to, C-contiguous."""
    return np.array(g, order="C") if type(g) is np.ndarray else g.copy()
