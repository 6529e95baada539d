"""What all schedules share: the protocol of torch.optim.lr_scheduler.

A schedule computes the next rates from the present ones (``get_lr``), so several can act on one optimizer. Subclasses
of users follow the same protocol: ``get_lr()``, ``last_epoch``, ``base_lrs``, ``_step_count``.
"""

from __future__ import annotations

import warnings
from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ArgumentError
from dtrain.optim.optimizer import Optimizer


def check_optimizer(optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a learning-rate schedule needs an Optimizer, got {type(optimizer).__name__}")
    return optimizer


def values_of(optimizer: Optimizer, key: str) -> list[Any]:
    """The option ``key`` of every group; Tensors copied."""
    return [v.clone() if isinstance(v := group[key], Tensor) else v for group in optimizer.param_groups]  # type: ignore[attr-defined]


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Set an option; a Tensor keeps its identity."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def one_each(name: str, optimizer: Optimizer, values: Any) -> list[Any]:
    """``values`` for every group: one for all, or a list with one for each."""
    groups = optimizer.param_groups
    if not isinstance(values, (list, tuple)):
        return [values] * len(groups)
    if len(values) != len(groups):
        raise ArgumentError(f"{name} has {len(values)} values for {len(groups)} parameter groups; give one for each, or a single one")
    return list(values)


class LRScheduler:
    """Base of the schedules: sets the ``lr`` of every group when made and at each ``step()``.

    ``last_epoch`` is the number of steps taken; -1 starts, another value resumes (groups then need "initial_lr").
    """

    _get_lr_called_within_step = False
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", values_of(optimizer, "lr")[i])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"last_epoch={last_epoch} resumes a schedule, but parameter group {i} has no 'initial_lr'; "
                    "load the optimizer's state_dict first, or start with last_epoch=-1"
                )
        self.base_lrs = values_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The rates that follow the present ones, one for each group; every schedule defines it."""
        raise TypeError(f"{type(self).__name__} has no get_lr(); define it to return one learning rate for each parameter group")

    def get_last_lr(self) -> list[Any]:
        """The rates set last, one for each group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go on by one; call it after ``optimizer.step()``. ``epoch`` jumps (as PyTorch's deprecated argument does)."""
        if self._step_count == 1 and not self.optimizer._opt_called and not getattr(self.optimizer, "_scaler_skipped", False):
            warnings.warn(
                f"{type(self).__name__}.step() was called before the first optimizer.step(), so the first learning rate was never used; "
                "call optimizer.step() first, then scheduler.step()",
                stacklevel=2,
            )
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            closed = getattr(self, "_get_closed_form_lr", None)
            values = self.get_lr() if epoch is None or closed is None else closed()
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_value(group, "lr", lr)
        self._last_lr = values_of(self.optimizer, "lr")

    def _now(self) -> list[Any]:
        """The present rates, for ``get_lr``; a call from outside ``step`` is warned about."""
        if not self._get_lr_called_within_step:
            warnings.warn("get_lr() computes the next learning rates; for the present ones call get_last_lr()", stacklevel=3)
        return values_of(self.optimizer, "lr")

    def _scaled(self, factor: float) -> list[Any]:
        return [lr * factor for lr in self._now()]

    def state_dict(self) -> dict[str, Any]:
        """All of the schedule but its optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave. Load the optimizer's state too: it holds the present rates."""
        self.__dict__.update(state_dict)


class _LRScheduler(LRScheduler):
    """The name that older subclasses use."""
