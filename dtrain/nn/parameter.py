"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

import copy
from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import GraphError


class Parameter(Tensor):
    """A leaf tensor that a module trains. Shares the memory of ``data``, a Tensor (an empty one by default)."""

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> "Parameter":
        self = cls._wrap(_array_of(data, cls.__name__))
        if data is not None:
            self._vc = data._vc
        if requires_grad:
            self.requires_grad_()
        return self  # type: ignore[return-value]

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict) -> "Parameter":
        if id(self) in memo:
            return memo[id(self)]
        out = memo[id(self)] = type(self)._wrap(self._array.copy())
        out._rg = self._rg
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return out  # type: ignore[return-value]


class Buffer(Tensor):
    """A tensor that a module keeps as a buffer when it is assigned; saved with the module unless ``persistent`` is False."""

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> "Buffer":
        self = cls._wrap(_array_of(data, cls.__name__))
        if data is not None:
            self._vc = data._vc
        self.persistent = persistent  # type: ignore[attr-defined]
        return self  # type: ignore[return-value]

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        pass


def _array_of(data: Any, kind: str) -> Any:
    if data is None:
        from dtrain.ops.creation import empty

        return empty(0)._array
    if not isinstance(data, Tensor):
        raise TypeError(f"{kind} expects a Tensor, got {type(data).__name__}; make one with dtrain.tensor(...) first")
    if data._node is not None and data._rg and kind == "Parameter":
        raise GraphError(
            "a Parameter must be a leaf, but this tensor was computed from others that require grad; "
            "pass tensor.detach() to cut it off from them"
        )
    return data._array
