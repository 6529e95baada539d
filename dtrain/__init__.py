"""dtrain: distributed training that works the way PyTorch does.

Everything here is loaded on first use, so that ``import dtrain`` costs milliseconds and the launcher needs no NumPy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = frozenset(
    """absent amp autograd backend comm cuda data distributed env errors files launcher logs nn onnx ops optim utils""".split()
)
_NAMES: dict[str, str] = {
    "Tensor": "autograd.tensor",
    "Size": "autograd.tensor",
    "no_grad": "autograd.grad_mode",
    "enable_grad": "autograd.grad_mode",
    "inference_mode": "autograd.grad_mode",
    "set_grad_enabled": "autograd.grad_mode",
    "is_grad_enabled": "autograd.grad_mode",
    "set_printoptions": "autograd.printing",
    "autocast": "amp",
    "device": "backend.device",
    "get_default_device": "backend.device",
    "set_default_device": "backend.device",
    "manual_seed": "backend.random",
    "seed": "backend.random",
    "initial_seed": "backend.random",
    "get_rng_state": "backend.random",
    "set_rng_state": "backend.random",
    "Generator": "backend.random",
    "default_generator": "backend.random",
    "get_num_threads": "backend.threads",
    "set_num_threads": "backend.threads",
    "promote_types": "backend.promotion",
    "result_type": "ops.types",
    "can_cast": "backend.promotion",
    "is_tensor": "ops.types",
    "is_floating_point": "ops.types",
    "numel": "ops.types",
    **dict.fromkeys(
        """dtype float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 double float half long int short
        finfo iinfo get_default_dtype set_default_dtype""".split(),
        "backend.dtypes",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"dtrain.{name}")
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _NAMES:
        importlib.import_module("dtrain.ops")
        value = getattr(importlib.import_module(f"dtrain.{_NAMES[name]}"), name)
    else:
        value = _operation(name)
    globals()[name] = value
    return value


def _operation(name: str) -> Any:
    functions = importlib.import_module("dtrain.ops").functions
    if name not in functions:
        from dtrain.absent import attribute_error

        raise attribute_error("dtrain", name, [*functions, *_NAMES, *_MODULES])
    return functions[name]


def __dir__() -> list[str]:
    functions = importlib.import_module("dtrain.ops").functions
    return sorted({*globals(), *_MODULES, *_NAMES, *functions})
