"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Sequence

from dtrain.errors import ArgumentError
from dtrain.optim.lr_scheduler.base import LRScheduler, set_value, values_of
from dtrain.optim.lr_scheduler.plateau import ReduceLROnPlateau
from dtrain.optim.optimizer import Optimizer


class _Composed(LRScheduler):
    """Base: checks the parts, and saves them with the whole."""

    _schedulers: Sequence[Any]

    def _check_parts(self, schedulers: Sequence[Any], optimizer: Optimizer) -> None:
        for i, part in enumerate(schedulers):
            if isinstance(part, ReduceLROnPlateau):
                raise ArgumentError(f"{type(self).__name__}: schedule {i} is a ReduceLROnPlateau, whose step() needs a metric; step it by itself")
            if getattr(part, "optimizer", None) is not optimizer:
                raise ArgumentError(f"{type(self).__name__}: schedule {i} ({type(part).__name__}) belongs to another optimizer")

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole and of its parts."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("optimizer", "_schedulers")}
        return {**state, "_schedulers": [part.state_dict() for part in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.__dict__.update({key: value for key, value in state_dict.items() if key != "_schedulers"})
        for part, saved in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            part.load_state_dict(saved)


class SequentialLR(_Composed):
    """One schedule after the other; schedule i + 1 takes over at step ``milestones[i]``, beginning with its own step 0."""

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1) -> None:
        if not schedulers:
            raise ArgumentError("SequentialLR needs at least one schedule")
        self._check_parts(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(f"SequentialLR of {len(schedulers)} schedules needs {len(schedulers) - 1} milestones, got {len(milestones)}")
        self._schedulers, self._milestones, self.optimizer = schedulers, milestones, optimizer
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            set_value(group, "lr", group["initial_lr"])
        _undo_first_step(self)
        current = schedulers[bisect_right(milestones, 0)]
        current._initial_step()
        self._last_lr = current.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on by one."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        current = self._schedulers[i]
        if i and self._milestones[i - 1] == self.last_epoch:
            current._update_lr(0)
        else:
            current.step()
        self._last_lr = current.get_last_lr()


def _undo_first_step(schedule: Any) -> None:
    """Making the parts stepped each of them once."""
    if hasattr(schedule, "_schedulers"):
        for part in schedule._schedulers:
            _undo_first_step(part)
    else:
        schedule.last_epoch -= 1


class ChainedScheduler(_Composed):
    """All schedules at once, each on what the one before it left."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ArgumentError("ChainedScheduler needs at least one schedule")
        self.optimizer = optimizer or schedulers[0].optimizer
        self._check_parts(schedulers, self.optimizer)
        self._schedulers = schedulers
        self._last_lr = values_of(self.optimizer, "lr")

    def step(self) -> None:  # type: ignore[override]
        """Go on by one in all of them."""
        for part in self._schedulers:
            part.step()
        self._last_lr = values_of(self.optimizer, "lr")
