"""Containers of modules and of parameters."""

from __future__ import annotations

import operator
from collections import OrderedDict
from typing import Any, Iterable, Iterator, Mapping

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.nn.module import Module, indent
from dtrain.nn.parameter import Parameter


def _position(index: Any, length: int, owner: Any) -> int:
    """A Python index as a position of [0, length)."""
    number = operator.index(index)
    if not -length <= number < length:
        raise IndexError(f"index {number} is out of range for {type(owner).__name__} of length {length}")
    return number % length


class _Numbered(Module):
    """Base of the containers whose members are called "0", "1", ..."""

    _modules: dict[str, Any]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: Any) -> Any:
        members = list(self._modules.values())
        if isinstance(index, slice):
            return self._of(list(self._modules.items())[index])
        return members[_position(index, len(members), self)]

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self._modules)[_position(index, len(self), self)]
        setattr(self, name, module)

    def __delitem__(self, index: Any) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [names[_position(index, len(names), self)]]:
            del self._modules[name]
        self._renumber(list(self._modules.values()))

    def _renumber(self, members: list[Any]) -> None:
        self._modules.clear()
        self._modules.update((str(i), module) for i, module in enumerate(members))

    def append(self, module: Module) -> Any:
        """Add ``module`` at the end. Returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add all ``modules`` at the end. Returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put ``module`` before position ``index``."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__!r} object is not a Module")
        members = list(self._modules.values())
        members.insert(index, module)
        self._renumber(members)
        return self

    def pop(self, index: Any = -1) -> Any:
        """Take out the module at ``index`` and return it."""
        module = self[index]
        del self[index]
        return module

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def _of(self, items: list[tuple[str, Any]]) -> Any:
        raise AssertionError("subclasses say how a slice is made")


class Sequential(_Numbered):
    """Modules that feed each other in order: ``Sequential(a, b)``, or from an OrderedDict of names and modules."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], (OrderedDict, dict)) else ((str(i), m) for i, m in enumerate(args))
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def _of(self, items: list[tuple[str, Any]]) -> "Sequential":
        return type(self)(OrderedDict(items))

    def __delitem__(self, index: Any) -> None:
        named = any(not name.isdigit() for name in self._modules)
        before = list(self._modules)
        super().__delitem__(index)
        if named:
            gone = before[index] if isinstance(index, slice) else [before[operator.index(index)]]
            kept = [name for name in before if name not in gone]
            members = list(self._modules.values())
            self._modules.clear()
            self._modules.update(zip(kept, members))

    def __add__(self, other: Any) -> "Sequential":
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> "Sequential":
        if not isinstance(times, int) or times < 1:
            raise ArgumentError(f"a Sequential can be repeated a whole number of times from 1, got {times!r}")
        return Sequential(*[module for _ in range(times) for module in self])

    __rmul__ = __mul__


class ModuleList(_Numbered):
    """A list whose modules are registered."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _of(self, items: list[tuple[str, Any]]) -> "ModuleList":
        return type(self)([module for _, module in items])

    def __add__(self, other: Iterable[Module]) -> "ModuleList":
        return type(self)([*self, *other])

    def __repr__(self) -> str:
        """Equal modules in a row are shown once: ``(0-2): 3 x Linear(...)``."""
        runs: list[list[Any]] = []  # [first, last, text]
        for i, text in enumerate(repr(module) for module in self):
            if runs and runs[-1][2] == text:
                runs[-1][1] = i
            else:
                runs.append([i, i, text])
        lines = [
            indent(f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}") for first, last, text in runs
        ]
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)" if lines else f"{self._get_name()}()"


class ModuleDict(Module):
    """A dict whose modules are registered, in order of insertion."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        if key not in self._modules:
            raise KeyError(f"{key!r}; the ModuleDict has {', '.join(map(repr, self._modules)) or 'no modules'}")
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Take out the module under ``key`` and return it."""
        module = self[key]
        del self[key]
        return module

    def keys(self) -> Any:
        """The names."""
        return self._modules.keys()

    def values(self) -> Any:
        """The modules."""
        return self._modules.values()

    def items(self) -> Any:
        """(name, module) pairs."""
        return self._modules.items()

    def update(self, modules: Any) -> None:
        """Add or replace modules, from a dict or pairs."""
        if not hasattr(modules, "items") and not hasattr(modules, "__iter__"):
            raise TypeError(f"ModuleDict.update takes a dict or pairs of name and module, got {type(modules).__name__}")
        for key, module in list(modules.items() if hasattr(modules, "items") else modules):
            self[key] = module


def _as_parameter(value: Any) -> Any:
    """Plain tensors become Parameters; other values stay what they are."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"Object of type: {type(value).__name__}"
    place = f" ({value.device})" if value.is_cuda else ""
    kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
    return f"{kind} containing: [{value.dtype} of size {'x'.join(map(str, value.shape))}{place}]"


class ParameterList(Module):
    """A list whose tensors are registered as parameters."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, str(i)) for i in range(self._size)])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(_position(index, self._size, self)))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(index, self._size, self)), _as_parameter(value))

    def append(self, value: Any) -> "ParameterList":
        """Add ``value`` at the end. Returns self."""
        setattr(self, str(self._size), _as_parameter(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> "ParameterList":
        """Add all ``values`` at the end. Returns self."""
        if isinstance(values, Tensor) or not hasattr(values, "__iter__"):
            raise TypeError(f"a ParameterList is extended by an iterable of tensors, got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    __iadd__ = extend

    def extra_repr(self) -> str:
        return "\n".join(f"  ({i}): {_describe(value)}" for i, value in enumerate(self))


class ParameterDict(Module):
    """A dict whose tensors are registered as parameters, in order of insertion."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(f"{key!r}; the ParameterDict has {', '.join(map(repr, self._keys)) or 'no entries'}")
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def keys(self) -> Any:
        """The names."""
        return self._keys.keys()

    def values(self) -> Any:
        """The parameters."""
        return [self[key] for key in self._keys]

    def items(self) -> Any:
        """(name, parameter) pairs."""
        return [(key, self[key]) for key in self._keys]

    def get(self, key: str, default: Any = None) -> Any:
        """The entry under ``key``, or ``default``."""
        return self[key] if key in self._keys else default

    def pop(self, key: str) -> Any:
        """Take out the entry under ``key`` and return it."""
        value = self[key]
        del self[key]
        return value

    def update(self, parameters: Any) -> None:
        """Add or replace entries, from a dict or pairs."""
        for key, value in list(parameters.items() if hasattr(parameters, "items") else parameters):
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(f"  ({key}): {_describe(value)}" for key, value in self.items())
