"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.optim import _blocks
from dtrain.optim._check import at_least_zero
from dtrain.optim.optimizer import Optimizer

_F32 = np.dtype(np.float32)


class SGD(Optimizer):
    """p -= lr * g, with momentum (Polyak 1964, or Nesterov's after Sutskever et al. 2013) and weight decay as an L2 penalty.

    ``foreach`` and ``fused`` are accepted and mean nothing; ``differentiable`` raises UnsupportedError.
    """

    _like_params = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        at_least_zero(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError(f"nesterov needs momentum above 0 and dampening 0, got momentum={momentum}, dampening={dampening}")
        defaults = dict(
            lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            maximize=maximize, foreach=foreach, differentiable=differentiable, fused=fused,
        )  # fmt: skip
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any]) -> None:
        lr = float(group["lr"])
        if group["momentum"] or group["weight_decay"]:
            for p in group["params"]:
                if p._grad is not None:
                    self._update_one(p, group, lr)
            return
        factor = np.array(-lr if group["maximize"] else lr, _F32)
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            array = p._array
            if array.__class__ is np.ndarray and array.dtype is _F32 and array.size <= _blocks.BLOCK:
                array -= grad._array * factor
                p._vc[0] += 1
            else:
                self._update_one(p, group, lr)

    def _update_one(self, p: Tensor, group: dict[str, Any], lr: float) -> None:
        momentum = float(group["momentum"])
        buffer, first = None, False
        if momentum:
            state = self.state[p]
            first = state.get("momentum_buffer") is None
            if first:
                state["momentum_buffer"] = Tensor._wrap(p._grad._array.copy())
            buffer = state["momentum_buffer"]._array
        sign = -1.0 if group["maximize"] else 1.0
        numbers = (lr, momentum, 1.0 - group["dampening"], float(group["weight_decay"]), sign, bool(group["nesterov"]), first)
        _blocks.run(sgd, (p._array, p._grad._array, buffer), numbers, 2)
        p._vc[0] += 1


def sgd(
    xp: Any, blocks: Any, scratch: list, lr: Any, momentum: Any, undamped: Any, weight_decay: Any, sign: Any, nesterov: bool, first: bool
) -> None:
    """One step on raw arrays (parameter, gradient, momentum buffer or None), in place; ``first`` starts the buffer."""
    p, g, buffer = blocks
    t, d = scratch
    if weight_decay or sign < 0:  # t = sign * g + weight_decay * p
        xp.multiply(p, weight_decay, out=t)
        g = (xp.add if sign > 0 else xp.subtract)(t, g, out=t)
    if buffer is not None:
        _advance(xp, buffer, g, momentum, undamped, first)
        if nesterov:
            g = xp.add(xp.multiply(buffer, momentum, out=d), g, out=d)
        else:
            g = buffer
    xp.multiply(g, lr, out=t)
    xp.subtract(p, t, out=p)


def _advance(xp: Any, buffer: Any, g: Any, momentum: Any, undamped: Any, first: bool) -> None:
    """buffer = momentum * buffer + undamped * g; the first one is g itself."""
    if first:
        xp.copyto(buffer, g)
        return
    xp.multiply(buffer, momentum, out=buffer)
    xp.add(buffer, g if undamped == 1.0 else g * undamped, out=buffer)
