"""Adam."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.backend import namespace
from dtrain.optim import _blocks
from dtrain.optim._check import at_least_zero, betas as checked_betas
from dtrain.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient (Kingma and Ba 2015); ``amsgrad`` keeps the largest second moment (Reddi et al. 2018).

    ``weight_decay`` is an L2 penalty, or decoupled from the gradient with ``decoupled_weight_decay`` (see AdamW).
    ``foreach``, ``fused`` and ``capturable`` are accepted and mean nothing; ``differentiable`` raises UnsupportedError.
    """

    _like_params = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay)
        defaults = dict(
            lr=lr, betas=checked_betas(betas), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize, foreach=foreach,
            capturable=capturable, differentiable=differentiable, fused=fused, decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p._grad is not None:
                self._update_one(p, group)

    def _update_one(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self._state_of(p, group["amsgrad"])
        state["step"]._array += 1
        step = float(state["step"]._array)
        largest = state["max_exp_avg_sq"]._array if group["amsgrad"] else None
        arrays = (p._array, p._grad._array, state["exp_avg"]._array, state["exp_avg_sq"]._array, largest)
        _blocks.run(adam, arrays, hyperparameters(group, step), 2)
        p._vc[0] += 1

    def _state_of(self, p: Tensor, amsgrad: bool) -> dict[str, Any]:
        state = self.state[p]
        zeros_like = namespace.of(p._array).zeros_like
        if "step" not in state:
            state["step"] = Tensor._wrap(np.zeros((), np.float32))
            state["exp_avg"] = Tensor._wrap(zeros_like(p._array))
            state["exp_avg_sq"] = Tensor._wrap(zeros_like(p._array))
        if amsgrad and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = Tensor._wrap(zeros_like(p._array))
        return state


def hyperparameters(group: dict[str, Any], step: float) -> tuple:
    """What ``adam`` needs of a group at a step number (from 1), with bias corrections folded in.

    lr * m / c1 / (sqrt(v / c2) + eps) = (lr * r / c1) * m / (sqrt(v) + eps * r) with r = sqrt(c2) saves a pass.
    """
    lr = float(group["lr"])
    beta1, beta2 = group["betas"]
    root = math.sqrt(1.0 - beta2**step)
    step_size = lr * root / (1.0 - beta1**step)
    decay = float(group["weight_decay"])
    decoupled = group["decoupled_weight_decay"]
    shrink = 1.0 - lr * decay if decoupled else 1.0
    sign = -1.0 if group["maximize"] else 1.0
    return 1.0 - beta1, beta2, 1.0 - beta2, step_size, group["eps"] * root, 0.0 if decoupled else decay, shrink, sign


def adam(
    xp: Any, blocks: Any, scratch: list, to_m: Any, beta2: Any, to_v: Any, step_size: Any, eps: Any, penalty: Any, shrink: Any, sign: Any
) -> None:
    """One step on raw arrays (parameter, gradient, first and second moment, largest second moment or None), in place."""
    p, g, m, v, largest = blocks
    t, u = scratch
    if shrink != 1.0:
        xp.multiply(p, shrink, out=p)
    if penalty or sign < 0:  # u = sign * g + penalty * p
        xp.multiply(p, penalty, out=u)
        g = (xp.add if sign > 0 else xp.subtract)(u, g, out=u)
    xp.subtract(g, m, out=t)
    xp.multiply(t, to_m, out=t)
    xp.add(m, t, out=m)
    xp.multiply(v, beta2, out=v)
    xp.multiply(g, g, out=t)
    xp.multiply(t, to_v, out=t)
    xp.add(v, t, out=v)
    if largest is not None:
        v = xp.maximum(largest, v, out=largest)
    xp.sqrt(v, out=t)
    xp.add(t, eps, out=t)
    xp.true_divide(m, t, out=t)
    xp.multiply(t, step_size, out=t)
    xp.subtract(p, t, out=p)
