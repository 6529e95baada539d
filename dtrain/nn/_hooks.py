"""Hooks of modules: around forward, on the gradients of inputs and outputs, and globally for all modules."""

from __future__ import annotations

from typing import Any, Callable

from dtrain.autograd.hooks import RemovableHandle, add
from dtrain.backend.state import local
from dtrain.nn import _taps

forward_pre_hooks: dict[int, Callable] = {}
forward_hooks: dict[int, Callable] = {}
hooked_globally: list[dict] = []  # the tables above that hold hooks; Module.__call__ tests whether there are any


class _GlobalHandle(RemovableHandle):
    """Removes a hook of all modules, and tells ``Module.__call__`` when none is left."""

    def remove(self) -> None:
        super().remove()
        if not self._hooks:
            hooked_globally[:] = [table for table in hooked_globally if table is not self._hooks]


def _add_globally(table: dict, hook: Callable) -> RemovableHandle:
    handle = _GlobalHandle(table)
    table[handle.id] = hook
    if not any(known is table for known in hooked_globally):
        hooked_globally.append(table)
    return handle


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(module, args)`` before the forward of every module; what it returns replaces ``args``."""
    return _add_globally(forward_pre_hooks, hook)


def register_module_forward_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the forward of every module; what it returns replaces the output."""
    return _add_globally(forward_hooks, hook)


class HookMixin:
    """Registration of hooks, and the call of a module that has some."""

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; what it returns replaces ``args``.

        With ``with_kwargs`` it is ``hook(module, args, kwargs)`` and may return ``(args, kwargs)``.
        """
        self._hooked = True
        handle = add(self._forward_pre_hooks, hook, prepend)
        if with_kwargs:
            self._forward_pre_hooks_with_kwargs[handle.id] = True
        return handle

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after forward; what it returns replaces the output.

        With ``with_kwargs`` it is ``hook(module, args, kwargs, output)``; ``always_call`` runs it (with output None) even when forward raises.
        """
        self._hooked = True
        handle = add(self._forward_hooks, hook, prepend)
        if with_kwargs:
            self._forward_hooks_with_kwargs[handle.id] = True
        if always_call:
            self._forward_hooks_always_called[handle.id] = True
        return handle

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` (a tuple) before the module's backward; what it returns replaces it."""
        self._hooked = True
        return add(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` (tuples) after the module's backward; what it returns replaces grad_input."""
        self._hooked = True
        return add(self._backward_hooks, hook, prepend)

    register_backward_hook = register_full_backward_hook

    def _call_hooked(self, args: tuple, kwargs: dict) -> Any:
        """``__call__`` of a module with hooks."""
        try:
            args, kwargs = self._before(args, kwargs)
            taps = None
            if (self._backward_hooks or self._backward_pre_hooks) and local.grad_enabled:
                taps = _taps.Taps(self)
                args = taps.enter(args)
            output = self._after(args, kwargs, self.forward(*args, **kwargs))
            return output if taps is None else taps.leave(output)
        except Exception:
            for key in self._forward_hooks_always_called:
                if key in self._forward_hooks:
                    self._run_forward_hook(key, self._forward_hooks[key], args, kwargs, None)
            raise

    def _before(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        for hook in list(forward_pre_hooks.values()):
            args = _as_args(hook(self, args), args)
        for key, hook in list(self._forward_pre_hooks.items()):
            if key in self._forward_pre_hooks_with_kwargs:
                out = hook(self, args, kwargs)
                if out is not None:
                    if not (isinstance(out, tuple) and len(out) == 2):
                        raise TypeError(f"a forward pre-hook with_kwargs returns None or (args, kwargs), got {type(out).__name__}")
                    args, kwargs = out
            else:
                args = _as_args(hook(self, args), args)
        return args, kwargs

    def _after(self, args: tuple, kwargs: dict, output: Any) -> Any:
        for hook in list(forward_hooks.values()):
            out = hook(self, args, output)
            output = output if out is None else out
        for key, hook in list(self._forward_hooks.items()):
            out = self._run_forward_hook(key, hook, args, kwargs, output)
            output = output if out is None else out
        return output

    def _run_forward_hook(self, key: int, hook: Callable, args: tuple, kwargs: dict, output: Any) -> Any:
        if key in self._forward_hooks_with_kwargs:
            return hook(self, args, kwargs, output)
        return hook(self, args, output)


def _as_args(out: Any, args: tuple) -> tuple:
    if out is None:
        return args
    return out if isinstance(out, tuple) else (out,)
