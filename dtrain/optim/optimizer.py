"""The base of all optimizers: parameter groups, state, hooks, saving."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from typing import Any, Callable, Iterable

from dtrain.autograd.grad_mode import enable_grad
from dtrain.autograd.hooks import RemovableHandle, add
from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError, GraphError, StateDictError, UnsupportedError
from dtrain.optim import _state


class _Required:
    """The default of an option that every group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def observed(step: Callable) -> Callable:
    """``step`` with the optimizer's hooks around it; schedulers learn from it that a step was taken."""

    @functools.wraps(step)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        outermost = self._hooked and type(self).step is call
        if outermost:
            args, kwargs = _run_pre_hooks(self, args, kwargs)
        out = step(self, *args, **kwargs)
        self._opt_called = True
        if outermost:
            for hook in list(self._optimizer_step_post_hooks.values()):
                hook(self, args, kwargs)
        return out

    return call


def _run_pre_hooks(optimizer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    for hook in list(optimizer._optimizer_step_pre_hooks.values()):
        out = hook(optimizer, args, kwargs)
        if out is not None:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise TypeError(f"an optimizer step pre-hook returns None or (args, kwargs), got {type(out).__name__}")
            args, kwargs = out
    return args, kwargs


class Optimizer:
    """Base class. ``params``: Tensors, (name, Tensor) pairs, or dicts with "params" and options of their own.

    A subclass defines ``_update(group)``, which changes the group's parameters once, or ``step`` itself.
    """

    _like_params: tuple[str, ...] = ()  # state that has its parameter's shape; checked on loading
    _opt_called = False
    _hooked = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = observed(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        for kind in ("step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"):
            setattr(self, f"_optimizer_{kind}_hooks", {})
        _check_flags(defaults)
        if isinstance(params, Tensor):
            raise TypeError("an optimizer takes an iterable of Tensors or dicts, got a single Tensor; put it into a list")
        _refuse_sets(params)
        groups = list(params)
        if not groups:
            raise ArgumentError("optimizer got an empty parameter list; does the model have parameters, and was a generator used up before?")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: {"params": tensors, option: value, ...}; options left out get the defaults.

        Raises ArgumentError for a parameter that is in a group already or is missing a required option.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group is a dict with 'params', got {type(param_group).__name__}")
        if "params" not in param_group:
            raise ArgumentError(f"a parameter group needs 'params', got only {sorted(param_group)}")
        params, names = _unpack(param_group["params"])
        _check_params(params, self.param_groups)
        param_group["params"] = params
        if names:
            param_group["param_names"] = names
        if self.param_groups and ("param_names" in param_group) != ("param_names" in self.param_groups[0]):
            raise ArgumentError("either all parameter groups come with names or none does; pass named_parameters() in every group")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ArgumentError(f"parameter group {len(self.param_groups)} does not give the required option {name!r}")
            param_group.setdefault(name, default)
        self.param_groups.append(param_group)

    @observed
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters once from their ``.grad``. ``closure`` evaluates the model again and returns the loss."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__} defines neither step() nor _update(group)")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or with ``set_to_none=False`` make them zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    p._grad = p._grad.detach()
                    p._grad.zero_()

    # -- saving -----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {name: value}}, "param_groups": [...]}: parameters are numbered in the order of the groups."""
        for hook in list(self._optimizer_state_dict_pre_hooks.values()):
            hook(self)
        saved = _state.pack(self.state, self.param_groups)
        for hook in list(self._optimizer_state_dict_post_hooks.values()):
            out = hook(self, saved)
            saved = saved if out is None else out
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave (copied; NumPy arrays are taken too). Raises StateDictError, then nothing has changed."""
        if not isinstance(state_dict, dict) or "state" not in state_dict or "param_groups" not in state_dict:
            raise StateDictError("an optimizer's state_dict is a dict with 'state' and 'param_groups'; is this a model's, or a whole checkpoint?")
        state_dict = dict(state_dict)
        for hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            out = hook(self, state_dict)
            state_dict = state_dict if out is None else out
        state, groups = _state.unpack(state_dict, self.param_groups, self._like_params)
        self.__setstate__({"state": state, "param_groups": groups})
        for hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            hook(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for group in self.param_groups:
            for name, default in self.defaults.items():
                if default is not required:
                    group.setdefault(name, default)

    # -- hooks ------------------------------------------------------------------------------------------------------
    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)``."""
        self._hooked = True
        return add(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        self._hooked = True
        return add(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before state_dict."""
        return add(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after state_dict; what it returns replaces the dict."""
        return add(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; what it returns replaces the dict."""
        return add(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading."""
        return add(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def _check_flags(defaults: dict[str, Any]) -> None:
    """PyTorch's switches between implementations: there is one here, so most mean nothing."""
    if defaults.get("differentiable"):
        raise UnsupportedError("differentiable=True: dtrain's optimizers update in place, outside the graph; write the update with tensor operations instead")
    if defaults.get("foreach") and defaults.get("fused"):
        raise ArgumentError("foreach and fused cannot both be True; leave both out, dtrain picks the fastest update itself")


def _refuse_sets(params: Any) -> None:
    if isinstance(params, (set, frozenset)):
        raise TypeError("parameters in a set have no order, so saved state could not be matched to them; use a list")


def _unpack(params: Any) -> tuple[list[Tensor], list[str]]:
    """The tensors of a group and, where pairs were given, their names."""
    if isinstance(params, Tensor):
        return [params], []
    _refuse_sets(params)
    items = list(params)
    named = [item for item in items if isinstance(item, tuple)]
    if not named:
        return items, []
    if len(named) != len(items):
        raise ArgumentError("either all parameters of a group come with names or none does")
    return [item[1] for item in named], [item[0] for item in named]


def _check_params(params: list[Tensor], groups: list[dict[str, Any]]) -> None:
    known = {p for group in groups for p in group["params"] if isinstance(p, Tensor)}
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(f"an optimizer takes Tensors, parameter {i} is {type(p).__name__}; pass model.parameters()")
        if p._node is not None:
            raise GraphError(f"parameter {i} (shape {tuple(p.shape)}) was computed from other tensors; only leaves can be optimized")
        if p in known:
            raise ArgumentError(f"parameter {i} (shape {tuple(p.shape)}) already is in another parameter group")
    if len(set(params)) != len(params):
        warnings.warn("a parameter group holds some parameter twice, so each step updates it twice; pass every parameter once", stacklevel=4)
