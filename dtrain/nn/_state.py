"""state_dict and load_state_dict.

Loading has two phases: every module lists what it would write and what does not fit; only when all of it fits is
anything written. So a failed load leaves the model as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Callable, Mapping, NamedTuple

from dtrain.autograd.grad_mode import no_grad
from dtrain.autograd.hooks import RemovableHandle, add
from dtrain.autograd.tensor import Tensor
from dtrain.errors import StateDictError
from dtrain.nn import _loading

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """Keys the module has and the state_dict lacks, and the reverse."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StateMixin:
    """The state of a module as a flat dict of tensors."""

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Path -> tensor of all parameters and persistent buffers, sharing their memory; detached unless ``keep_vars``."""
        if args:
            destination, prefix, keep_vars = (*args, *(destination, prefix, keep_vars)[len(args) :])
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            out = hook(self, destination, prefix, local_metadata)
            destination = destination if out is None else out
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add this module's own values, not those of submodules, to ``destination``."""
        for name, value in self._own_state():
            destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state():
            destination[prefix + EXTRA] = self.get_extra_state()

    def _own_state(self) -> list[tuple[str, Tensor]]:
        skipped = self._non_persistent_buffers_set
        members = [*self._parameters.items(), *[item for item in self._buffers.items() if item[0] not in skipped]]
        return [(name, value) for name, value in members if value is not None]

    def get_extra_state(self) -> Any:
        """What else to save with the module; define it together with ``set_extra_state``."""
        raise StateDictError(f"{type(self).__name__} defines set_extra_state() but not get_extra_state(); define both")

    def set_extra_state(self, state: Any) -> None:
        """Take back what ``get_extra_state`` returned."""
        raise StateDictError(f"{type(self).__name__} defines get_extra_state() but not set_extra_state(); define both")

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not StateMixin.get_extra_state

    def _takes_extra_state(self) -> bool:
        return type(self).set_extra_state is not StateMixin.set_extra_state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Take the values of ``state_dict``: Tensors, NumPy arrays, or anything else with ``__array__``.

        ``strict`` refuses missing and unexpected keys; ``assign`` makes the given tensors the module's own instead of copying.
        Raises StateDictError that lists everything that does not fit; then nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict expects a dict of tensors, got {type(state_dict).__name__}")
        load = _loading.Load(assign)
        with no_grad():
            self._collect_load(load, dict(state_dict), getattr(state_dict, "_metadata", None), "")
            return load.finish(self, strict)

    def _collect_load(self, load: Any, state: dict, metadata: Any, prefix: str) -> None:
        """Phase one for this module and all below it; ``state`` holds the keys that begin with ``prefix``."""
        local_metadata = dict(metadata.get(prefix[:-1], {})) if metadata else {}
        local_metadata.update(_load=load)
        if load.assign:
            local_metadata["assign_to_params_buffers"] = True
        self._load_from_state_dict(state, prefix, local_metadata, True, load.missing, load.unexpected, load.errors)
        for name, module in self._modules.items():
            if module is not None:
                inner = f"{prefix}{name}."
                module._collect_load(load, {k: v for k, v in state.items() if k.startswith(inner)}, metadata, inner)
        if self._load_state_dict_post_hooks:
            load.post_hooks.extend((self, hook) for hook in self._load_state_dict_post_hooks.values())

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool, missing_keys: list, unexpected_keys: list, error_msgs: list
    ) -> None:
        """Match this module's own values (not those of submodules) with ``state_dict`` and note what is to be written."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        load = local_metadata.get("_load")
        writes = [] if load is None else load.writes
        own = self._own_state()
        for name, target in own:
            key = prefix + name
            if key in state_dict:
                assign = bool(local_metadata.get("assign_to_params_buffers"))
                _loading.plan(writes, error_msgs, _loading.Write(self, name, key, target, state_dict[key], assign))
            elif strict:
                missing_keys.append(key)
        self._load_extra(state_dict, prefix, strict, missing_keys, unexpected_keys, writes)
        if strict:
            known = {name for name, _ in own} | {EXTRA}
            unexpected_keys.extend(key for key in state_dict if key.startswith(prefix) and self._is_unexpected(key[len(prefix) :], known))
        if load is None:
            _loading.write_all(writes)

    def _is_unexpected(self, rest: str, known: set[str]) -> bool:
        first, dot, _ = rest.partition(".")
        return self._modules.get(first) is None if dot else rest not in known

    def _load_extra(self, state: dict, prefix: str, strict: bool, missing: list, unexpected: list, writes: list) -> None:
        key = prefix + EXTRA
        if self._takes_extra_state():
            if key in state:
                writes.append(_loading.ExtraWrite(self, state[key]))
            elif strict:
                missing.append(key)
        elif strict and key in state:
            unexpected.append(key)

    # -- hooks ------------------------------------------------------------------------------------------------------
    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before state_dict collects."""
        return add(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after state_dict; it may change the dict in place."""
        return add(self._state_dict_hooks, hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`` before matching."""
        return add(self._load_state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(self, hook: Callable, with_module: bool = False) -> RemovableHandle:
        return add(self._load_state_dict_pre_hooks, hook if with_module else lambda module, *rest: hook(*rest))

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may change the two lists of keys in place."""
        return add(self._load_state_dict_post_hooks, hook)
