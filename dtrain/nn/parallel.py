"""PyTorch's path to the parallel wrappers, which live above ``nn`` and are loaded when asked for."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"DistributedDataParallel": "dtrain.distributed.ddp"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dtrain.nn.parallel' has no attribute {name!r}; it has {sorted(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
