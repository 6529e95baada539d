"""Module: a named tree of parameters, buffers and submodules with a ``forward``."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.nn import _where
from dtrain.nn._hooks import HookMixin, hooked_globally
from dtrain.nn._moves import MoveMixin
from dtrain.nn._state import StateMixin
from dtrain.nn._tree import TreeMixin
from dtrain.nn.parameter import Buffer, Parameter


class Module(TreeMixin, StateMixin, MoveMixin, HookMixin):
    """Base of all layers and models. Assigned Parameters, Modules and Buffers are registered under their attribute's name."""

    training: bool
    call_super_init = False
    _version = 1
    _hooked = False  # becomes True on an instance when a hook is added

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (args or kwargs) and not self.call_super_init:
            given = f"{len(args)} positional and {sorted(kwargs)} keyword arguments"
            raise TypeError(f"{type(self).__name__}: Module.__init__() takes no arguments, got {given}")
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _non_persistent_buffers_set=set(), _modules={},
            _forward_hooks={}, _forward_hooks_with_kwargs={}, _forward_hooks_always_called={},
            _forward_pre_hooks={}, _forward_pre_hooks_with_kwargs={}, _backward_hooks={}, _backward_pre_hooks={},
            _state_dict_hooks={}, _state_dict_pre_hooks={}, _load_state_dict_pre_hooks={}, _load_state_dict_post_hooks={},
        )  # fmt: skip
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._hooked or hooked_globally:
                return self._call_hooked(args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            _where.add(error, self)
            raise

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        name = type(self).__name__
        raise TypeError(f"{name} has no forward(); define `def forward(self, x)` in class {name}")

    # -- attributes -------------------------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        if "_modules" in fields:
            if name in fields["_modules"]:
                return fields["_modules"][name]
            if name in fields["_parameters"]:
                return fields["_parameters"][name]
            if name in fields["_buffers"]:
                return fields["_buffers"][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            self._tables(name, "parameters")
            self._discard(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            modules = self._tables(name, "modules")["_modules"]
            self._discard(name, "_modules")
            modules[name] = value
        elif isinstance(value, Buffer):
            self._tables(name, "buffers")
            self._discard(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
        elif name in fields.get("_parameters", ()):
            if value is not None:
                raise TypeError(f"cannot assign {_kind(value)} to parameter {name!r} (a Parameter or None expected); wrap it: nn.Parameter(value)")
            fields["_parameters"][name] = None
        elif name in fields.get("_modules", ()):
            if value is not None:
                raise TypeError(f"cannot assign {_kind(value)} to submodule {name!r} (a Module or None expected)")
            fields["_modules"][name] = None
        elif name in fields.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign {_kind(value)} to buffer {name!r} (a Tensor or None expected)")
            fields["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        fields = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            if name in fields.get(table, ()):
                del fields[table][name]
                fields["_non_persistent_buffers_set"].discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._modules, *self._buffers}
        return sorted(name for name in names if not name[:1].isdigit())

    def _tables(self, name: str, what: str) -> dict[str, Any]:
        """The instance's own dict, once ``Module.__init__`` has filled it."""
        if "_modules" not in self.__dict__:
            raise AttributeError(
                f"cannot assign {what} ({name!r}) before Module.__init__() has run; call super().__init__() first in {type(self).__name__}.__init__"
            )
        return self.__dict__

    def _discard(self, name: str, keep: str) -> None:
        """Forget what else was known under ``name``."""
        fields = self.__dict__
        fields.pop(name, None)
        for table in ("_parameters", "_buffers", "_modules"):
            if table != keep:
                fields[table].pop(name, None)
        fields["_non_persistent_buffers_set"].discard(name)

    # -- registration -----------------------------------------------------------------------------------------------
    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under ``name``; None reserves the name for a parameter that is absent."""
        self._check_name(name, "parameter", "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"cannot register {_kind(param)} as parameter {name!r} (a Parameter or None expected); wrap it: nn.Parameter(value)")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but not trained; saved in the state_dict unless ``persistent`` is False."""
        self._check_name(name, "buffer", "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot register {_kind(tensor)} as buffer {name!r} (a Tensor or None expected)")
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a submodule under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_kind(module)} is not a Module subclass, so it cannot be submodule {name!r}")
        self._check_name(name, "module", "_modules")
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, name: Any, what: str, table: str) -> None:
        tables = self._tables(str(name), what + "s")
        if not isinstance(name, str):
            raise TypeError(f"a {what}'s name is a string, got {type(name).__name__}")
        if "." in name or not name:
            raise ArgumentError(f"a {what}'s name cannot be empty or contain '.', got {name!r}")
        if name not in tables[table] and hasattr(self, name):
            raise ArgumentError(f"{type(self).__name__} already has an attribute {name!r}; choose another name for the {what}")

    # -- looks ------------------------------------------------------------------------------------------------------
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """The module's settings, as shown between the brackets of its repr."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extras = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        return frame(self._get_name(), extras, children)


def frame(name: str, extras: list[str], children: list[str]) -> str:
    """``Name(extra)`` on one line, or one line for each child."""
    if len(extras) == 1 and not children:
        return f"{name}({extras[0]})"
    lines = extras + children
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)" if lines else f"{name}()"


def indent(text: str) -> str:
    """``text`` with all lines but the first moved right by two."""
    return text.replace("\n", "\n  ")


def _kind(value: Any) -> str:
    return f"{type(value).__name__!r} object"


