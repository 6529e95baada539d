"""Checkpointer: saves every so many steps, keeps the newest few, finds the one to resume from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dtrain.distributed.checkpoint import manifest
from dtrain.distributed.checkpoint.agree import place, together
from dtrain.distributed.checkpoint.loading import Checkpoint, load
from dtrain.distributed.checkpoint.saving import save
from dtrain.errors import ArgumentError, CheckpointError
from dtrain.logs import logger

State = dict | Callable[[], dict]


class Checkpointer:
    """Checkpoints of one training run in ``directory``; every rank of ``group`` makes the same calls.

    ``every``: `maybe_save` saves at multiples of it. ``keep``: how many of the newest remain. ``on_error="continue"`` turns
    a failed save (a full disk, say) into a logged error and tries again at the next step, "raise" raises it.
    """

    def __init__(self, directory: str | os.PathLike, every: int | None = None, keep: int | None = None, group: Any = None,
                 *, on_error: str = "raise") -> None:
        if every is not None and every < 1:
            raise ArgumentError(f"every must be at least 1 step (or None to save only when told), got {every}")
        if on_error not in ("raise", "continue"):
            raise ArgumentError(f"on_error={on_error!r} is not known; choose 'raise' or 'continue'")
        self.directory, self.every, self.keep, self.group, self.on_error = os.fspath(directory), every, keep, group, on_error
        self._failed = False

    def due(self, step: int) -> bool:
        """Whether `maybe_save` would save at ``step``: a multiple of ``every``, or the step after a failed save."""
        return self._failed or (self.every is not None and step > 0 and step % self.every == 0)

    def maybe_save(self, step: int, state: State, per_rank: State | None = None) -> bool:
        """Save if due; ``state`` and ``per_rank`` may be functions, called only then. True if a checkpoint was written."""
        return self.due(step) and self.save(step, state, per_rank)

    def save(self, step: int, state: State, per_rank: State | None = None) -> bool:
        """Save now; False only if it failed and ``on_error`` is "continue"."""
        try:
            save(_value(state), self.directory, step, self.group, self.keep, per_rank=_value(per_rank))
        except CheckpointError as e:
            if self.on_error == "raise":
                raise
            self._failed = True
            logger.error("%s; training goes on and the save is tried again after the next step", e)
            return False
        self._failed = False
        return True

    def resume(self, verify: bool = True) -> Checkpoint | None:
        """The newest loadable checkpoint, or None if there is none at all; CheckpointError if all there are is damaged."""
        rank, _ = place(self.group)
        found = together(self.group, f"looking for checkpoints in {self.directory}",
                         lambda: bool(manifest.steps(self.directory)) if rank == 0 else None)[0]
        return load(self.directory, group=self.group, verify=verify) if found else None


def _value(state: Any) -> Any:
    return state() if callable(state) else state
