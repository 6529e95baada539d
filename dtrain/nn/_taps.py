"""Full backward hooks of a module: two identity operations, one around its inputs and one around its outputs.

Backward meets the outer one first (there ``grad_output`` is known), goes through the module, and meets the inner one
last (there ``grad_input`` is complete).
"""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.dispatch import apply
from dtrain.autograd.op import Op
from dtrain.autograd.tensor import Tensor


class Tap(Op):
    """ys = xs; in backward the tuple of gradients goes through ``see``."""

    half_as_float = False

    def __init__(self, count: int, see: Callable[[tuple], tuple]) -> None:
        self.num_outputs = count  # type: ignore[misc]
        self.see = see

    def forward(self, xp: Any, *xs: Any) -> Any:
        return xs if len(xs) > 1 else xs[0]

    def backward(self, xp: Any, *gs: Any) -> tuple:
        if xp.builds_graph:
            return self.see(gs)
        seen = self.see(tuple([None if g is None else Tensor._wrap(xp.asarray(g)) for g in gs]))
        return tuple([None if g is None else g._array for g in seen])


class Taps:
    """The pair of taps of one call of ``module``."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.grad_output: tuple = ()
        self.tapped: list[int] = []
        self.num_inputs = 0

    def enter(self, args: tuple) -> tuple:
        """The positional inputs, those that require grad behind the inner tap."""
        self.num_inputs = len(args)
        self.tapped = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x._rg]
        if not self.tapped:
            return args
        out = list(args)
        for i, y in zip(self.tapped, _through(self._grad_input, [args[i] for i in self.tapped])):
            out[i] = y
        return tuple(out)

    def leave(self, output: Any) -> Any:
        """The output (a tensor, or tensors in a tuple, list or dict) behind the outer tap."""
        tensors: list[Tensor] = []
        _collect(output, tensors)
        if not tensors:
            return output
        fresh = iter(_through(self._grad_output, tensors))
        return _replace(output, fresh)

    def _grad_output(self, grads: tuple) -> tuple:
        for hook in list(self.module._backward_pre_hooks.values()):
            grads = _checked(hook(self.module, grads), grads, "full backward pre-hook")
        self.grad_output = grads
        if not self.tapped:
            self._run_hooks((None,) * self.num_inputs)
        return grads

    def _grad_input(self, grads: tuple) -> tuple:
        full: list[Any] = [None] * self.num_inputs
        for i, g in zip(self.tapped, grads):
            full[i] = g
        seen = self._run_hooks(tuple(full))
        return tuple([seen[i] for i in self.tapped])

    def _run_hooks(self, grad_input: tuple) -> tuple:
        for hook in list(self.module._backward_hooks.values()):
            grad_input = _checked(hook(self.module, grad_input, self.grad_output), grad_input, "full backward hook")
        return grad_input


def _through(see: Callable[[tuple], tuple], tensors: list[Tensor]) -> list[Tensor]:
    out = apply(Tap(len(tensors), see), *tensors)
    outs = list(out) if isinstance(out, tuple) else [out]
    for x, y in zip(tensors, outs):
        y._vc = x._vc
    return outs


def _collect(value: Any, into: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        if value._rg:
            into.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, into)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, into)


def _replace(value: Any, fresh: Any) -> Any:
    if isinstance(value, Tensor):
        return next(fresh) if value._rg else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_replace(item, fresh) for item in value])
    if isinstance(value, (tuple, list)):
        return type(value)([_replace(item, fresh) for item in value])
    if isinstance(value, dict):
        return type(value)((key, _replace(item, fresh)) for key, item in value.items())
    return value


def _checked(out: Any, before: tuple, kind: str) -> tuple:
    if out is None:
        return before
    out = out if isinstance(out, tuple) else (out,)
    if len(out) != len(before):
        raise TypeError(f"a {kind} returned {len(out)} gradients, expected {len(before)}")
    return out
