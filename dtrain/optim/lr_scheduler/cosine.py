"""Schedules along a cosine: annealing, with warm restarts, and the one-cycle policy."""

from __future__ import annotations

import math
from typing import Any

from dtrain.errors import ArgumentError
from dtrain.optim.lr_scheduler.base import LRScheduler, check_optimizer, one_each, set_value, values_of
from dtrain.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """lr falls along half a cosine from the initial lr to ``eta_min`` over ``T_max`` steps, then rises again (Loshchilov and Hutter 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max < 1:
            raise ArgumentError(f"T_max is a number of steps from 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        now = self._now()
        if self._is_initial:
            return now
        if self._step_count == 1 and self.last_epoch > 0:
            return self._get_closed_form_lr()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # the cosine's lowest point, where the ratio below is 0 / 0
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(now, self.base_lrs)]
        here, before = (1 + math.cos(math.pi * epoch / self.T_max) for epoch in (self.last_epoch, self.last_epoch - 1))
        return [here / before * (lr - self.eta_min) + self.eta_min for lr in now]

    def _get_closed_form_lr(self) -> list[Any]:
        height = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that starts again after T_0, T_0 * T_mult, T_0 * T_mult^2, ... steps (SGDR, Loshchilov and Hutter 2017)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not isinstance(T_0, int) or T_0 < 1:
            raise ArgumentError(f"T_0 is a whole number of steps from 1, got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ArgumentError(f"T_mult is a whole number from 1, got {T_mult}")
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._now()
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:  # type: ignore[override]
        """Go on by one, or to ``epoch``, which may be a fraction (batches within an epoch)."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        elif epoch < 0:
            raise ArgumentError(f"epoch must not be negative, got {epoch}")
        else:
            self._jump(epoch)
        self.last_epoch = math.floor(epoch)
        self._get_lr_called_within_step = True
        try:
            for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                set_value(group, "lr", lr)
        finally:
            self._get_lr_called_within_step = False
        self._last_lr = values_of(self.optimizer, "lr")

    def _jump(self, epoch: float) -> None:
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            cycle = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**cycle - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**cycle


class OneCycleLR(LRScheduler):
    """lr rises from max_lr / div_factor to ``max_lr``, then falls far below where it began, momentum the other way (Smith and Topin 2018)."""

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not 0 <= pct_start <= 1:
            raise ArgumentError(f"pct_start is a fraction of [0, 1], got {pct_start}")
        if anneal_strategy not in _ANNEAL:
            raise ArgumentError(f"anneal_strategy is one of {', '.join(_ANNEAL)}, got {anneal_strategy!r}")
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        for group, top in zip(optimizer.param_groups, one_each("max_lr", optimizer, max_lr)):
            if last_epoch == -1:
                group.update(initial_lr=top / div_factor, max_lr=top, min_lr=top / div_factor / final_div_factor)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._start_momentum(base_momentum, max_momentum, last_epoch == -1)
        super().__init__(optimizer, last_epoch)

    def _start_momentum(self, base: Any, top: Any, fresh: bool) -> None:
        defaults = self.optimizer.defaults
        if "momentum" not in defaults and "betas" not in defaults:
            raise ArgumentError(f"{type(self.optimizer).__name__} has neither momentum nor betas to cycle; pass cycle_momentum=False")
        self.use_beta1 = "betas" in defaults
        bases, tops = one_each("base_momentum", self.optimizer, base), one_each("max_momentum", self.optimizer, top)
        for group, low, high in zip(self.optimizer.param_groups, bases, tops):
            if fresh:
                group.update(max_momentum=high, base_momentum=low)
                self._set_momentum(group, high)

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value

    def get_lr(self) -> list[Any]:
        self._now()
        step = self.last_epoch
        if step > self.total_steps:
            raise ArgumentError(f"OneCycleLR was made for {self.total_steps} steps and is at step {step}; give it a larger total_steps")
        start = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if step <= end or phase is self._schedule_phases[-1]:
                break
            start = end
        way, anneal = (step - start) / (end - start), _ANNEAL[self._anneal_func_type]
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                self._set_momentum(group, anneal(group[phase["start_momentum"]], group[phase["end_momentum"]], way))
        return [anneal(group[phase["start_lr"]], group[phase["end_lr"]], way) for group in self.optimizer.param_groups]


def _cos(start: float, end: float, way: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * way) + 1)


def _linear(start: float, end: float, way: float) -> float:
    return (end - start) * way + start


_ANNEAL = {"cos": _cos, "linear": _linear}


def _total_steps(total: Any, epochs: Any, steps_per_epoch: Any) -> int:
    if total is None:
        if epochs is None or steps_per_epoch is None:
            raise ArgumentError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
        total = epochs * steps_per_epoch
    if not isinstance(total, int) or total <= 0:
        raise ArgumentError(f"OneCycleLR needs a whole positive number of steps, got {total}")
    return total


def _phases(total: int, pct_start: float, three: bool) -> list[dict[str, Any]]:
    """Where each phase ends, and which options of a group it goes between."""

    def phase(end: float, lr: tuple[str, str], momentum: tuple[str, str]) -> dict[str, Any]:
        return {"end_step": end, "start_lr": lr[0], "end_lr": lr[1], "start_momentum": momentum[0], "end_momentum": momentum[1]}

    first = phase(float(pct_start * total) - 1, ("initial_lr", "max_lr"), ("max_momentum", "base_momentum"))
    if not three:
        return [first, phase(total - 1, ("max_lr", "min_lr"), ("base_momentum", "max_momentum"))]
    second = phase(float(2 * pct_start * total) - 2, ("max_lr", "initial_lr"), ("base_momentum", "max_momentum"))
    return [first, second, phase(total - 1, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))]
