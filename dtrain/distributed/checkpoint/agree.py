"""Doing things together: an action every rank takes, and whose failure on one rank is an error on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtrain.errors import CheckpointError


def together(group: Any, what: str, action: Callable[[], Any]) -> list[Any]:
    """Run ``action`` on every rank of ``group`` (None: a world of one); returns the results of all, by rank.

    If it raised on any rank, CheckpointError is raised on all, naming the first such rank and its reason.
    """
    result, failure, cause = None, None, None
    try:
        result = action()
    except Exception as e:
        failure, cause = str(e) if isinstance(e, CheckpointError) else f"{type(e).__name__}: {e}", e
    outcomes = [(result, failure)] if group is None else group.all_gather_object((result, failure))
    for rank, (_, text) in enumerate(outcomes):
        if text is not None:
            on = f" on rank {rank}" if len(outcomes) > 1 else ""
            raise CheckpointError(f"{what} failed{on}: {text}") from cause
    return [value for value, _ in outcomes]


def place(group: Any) -> tuple[int, int]:
    """(rank, size) in ``group``; None is a world of one."""
    return (0, 1) if group is None else (group.rank, group.size)
