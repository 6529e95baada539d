"""Automatic differentiation: the graph, the engine, and PyTorch's ``torch.autograd`` names."""

from __future__ import annotations

from dtrain.autograd.engine import backward, grad
from dtrain.autograd.function import Function
from dtrain.autograd.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from dtrain.autograd.gradcheck import gradcheck, gradgradcheck
from dtrain.autograd.tensor import Tensor

Variable = Tensor

__all__ = [
    "Function", "Tensor", "Variable", "backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "inference_mode",
    "is_grad_enabled", "no_grad", "set_grad_enabled",
]  # fmt: skip


def __getattr__(name: str) -> object:
    from dtrain.absent import attribute_error

    raise attribute_error(__name__, name, globals())
