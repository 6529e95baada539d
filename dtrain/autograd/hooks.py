"""Hooks on tensors: on a gradient when it is computed, and on a leaf when its ``.grad`` is complete."""

from __future__ import annotations

import weakref
from itertools import count
from typing import Any, Callable

from dtrain.autograd.tensor import Tensor
from dtrain.errors import GraphError

_ids = count()


class RemovableHandle:
    """Takes the hook out again with ``remove()``, or at the end of a ``with`` block."""

    def __init__(self, hooks: dict) -> None:
        self._hooks = hooks
        self.id = next(_ids)

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()


def add(hooks: dict, hook: Callable, prepend: bool = False) -> RemovableHandle:
    """Add ``hook`` at the end of ``hooks``, or at its beginning."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        for key in [key for key in hooks if key != handle.id]:
            hooks[key] = hooks.pop(key)
    return handle


def more(tensor: Tensor) -> dict:
    if tensor._more is None:
        tensor._more = {}
    return tensor._more


def _table(tensor: Tensor) -> dict:
    """Where hooks on this tensor's gradient live: with the leaf, or with the node and output number."""
    if not tensor._rg:
        raise GraphError("cannot register a hook on a tensor that does not require grad")
    node = tensor.grad_fn
    if node is None:
        return more(tensor).setdefault("hooks", {})
    if node.hooks is None:
        node.hooks = {}
    return node.hooks.setdefault(tensor._port, {})


def register(tensor: Tensor, hook: Callable) -> RemovableHandle:
    return add(_table(tensor), hook)


def register_post(tensor: Tensor, hook: Callable) -> RemovableHandle:
    if tensor.grad_fn is not None or not tensor._rg:
        raise GraphError("post-accumulate hooks are for leaf tensors that require grad")
    return add(more(tensor).setdefault("post", {}), hook)


def retain_grad(tensor: Tensor) -> None:
    if tensor.grad_fn is None:
        return
    state = more(tensor)
    if state.get("retains"):
        return
    state["retains"] = True
    reference = weakref.ref(tensor)

    def keep(grad: Tensor) -> None:
        alive = reference()
        if alive is not None:
            alive._grad = grad if alive._grad is None else alive._grad + grad

    register(tensor, keep)


def run(hooks: dict, grad: Tensor) -> Tensor:
    """The gradient after all ``hooks`` have seen (and perhaps replaced) it."""
    for hook in list(hooks.values()):
        out = hook(grad)
        if out is not None:
            grad = out
    return grad
