"""PyTorch's `utils` namespace; its modules are loaded on first use."""

import importlib
from typing import Any

_MODULES = ("data",)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"dtrain.utils.{name}")
    from dtrain.absent import attribute_error

    raise attribute_error(__name__, name, _MODULES)
