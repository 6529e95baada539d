"""Loading: the newest checkpoint that is complete and undamaged, by looking, never by a pointer file."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtrain.distributed.checkpoint import manifest, shardfile
from dtrain.distributed.checkpoint.agree import place, together
from dtrain.distributed.checkpoint.encode import decode
from dtrain.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded. ``per_rank`` is None if none was saved, or if ``world_size`` ranks saved it and others load it.

    ``reseed`` is True in the second case: the random states of the ranks could not be restored.
    """

    step: int
    state: dict
    per_rank: dict | None
    world_size: int
    path: str
    reseed: bool = False


def latest(directory: str | os.PathLike, verify: bool = False) -> int | None:
    """The newest step whose checkpoint in ``directory`` is complete, or None; with ``verify`` every byte is checked.

    Newer ones that are incomplete or damaged are skipped with a warning that says why.
    """
    for step in manifest.steps(directory):
        try:
            found = manifest.read(directory, step)
            for file, record in found["files"].items() if verify else ():
                shardfile.check(os.path.join(directory, manifest.step_name(step)), file, record, whole=True)
            return step
        except CheckpointError as e:
            _warn_skipped(step, e)
    return None


def load(directory: str | os.PathLike, step: int | None = None, group: Any = None, verify: bool = True) -> Checkpoint:
    """Load the checkpoint of ``step``, or the newest that every rank of ``group`` can read.

    All ranks must call this. Every byte read is checked against its checksum unless ``verify`` is False. Tensors come back
    on the CPU. Without ``step``, damaged checkpoints are skipped with a warning; CheckpointError, naming each and its
    reason, if none is left. With ``step``, CheckpointError names the file and tensor that is damaged.
    """
    rank, size = place(group)
    what = f"loading a checkpoint from {os.fspath(directory)}"
    if step is not None:
        candidates = [step]
    else:
        candidates = together(group, what, lambda: manifest.steps(directory) if rank == 0 else None)[0]
    reasons = []
    for candidate in candidates:
        held: list[Checkpoint] = []
        try:
            together(group, f"loading {os.path.join(directory, manifest.step_name(candidate))}",
                     lambda: held.append(read(directory, candidate, rank, size, verify)))
        except CheckpointError as e:
            if step is not None:
                raise
            reasons.append(str(e))
            if rank == 0:
                _warn_skipped(candidate, e)
            continue
        if rank == 0 and held[0].reseed:
            _warn_other_world(held[0], size)
        return held[0]
    raise CheckpointError(f"no checkpoint in {os.fspath(directory)} can be loaded" + "".join(f"\n  {r}" for r in reasons)
                          + ("" if reasons else ": there is none; check the path, or start without resuming"))


def read(directory: str | os.PathLike, step: int, rank: int = 0, size: int = 1, verify: bool = True) -> Checkpoint:
    """The checkpoint of ``step`` as seen by ``rank`` of ``size``; rank 0 also checks the files no rank of this world reads."""
    found = manifest.read(directory, step)
    folder = os.path.join(directory, manifest.step_name(step))
    same_world = found["world_size"] == size
    own = found["ranks"][rank] if same_world else None
    state, opened = _read_part(folder, found, found["replicated"], verify)
    per_rank, more = _read_part(folder, found, own, verify) if own else (None, set())
    unread = set(found["files"]) - opened - more
    if verify and rank == 0:
        for file in sorted(unread - {t["file"] for r in found["ranks"] if r and same_world for t in r["tensors"]}):
            shardfile.check(folder, file, found["files"][file], whole=True)
    return Checkpoint(step, state, per_rank, found["world_size"], folder, reseed=not same_world and any(found["ranks"]))


def _read_part(folder: str, found: dict, part: dict, verify: bool) -> tuple[dict, set[str]]:
    """The state of ``part`` and the files that were read for it."""
    tensors, arrays = part["tensors"], {}
    opened = {t["file"] for t in tensors}
    for file in sorted(opened):
        mine = [i for i, t in enumerate(tensors) if t["file"] == file]
        values = shardfile.read(folder, file, found["files"][file], [tensors[i] for i in mine], verify)
        arrays.update(zip(mine, values))
    try:
        return decode(part["state"], arrays.__getitem__, _tensor), opened
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{os.path.join(folder, manifest.MANIFEST)} describes an impossible state: {e!r}") from None


def _tensor(array: np.ndarray) -> Any:
    import dtrain

    return dtrain.from_numpy(array)


def _warn_skipped(step: int, reason: Exception) -> None:
    warnings.warn(f"skipping the checkpoint of step {step}: {reason}", stacklevel=3)


def _warn_other_world(checkpoint: Checkpoint, size: int) -> None:
    warnings.warn(f"{checkpoint.path} was saved by {checkpoint.world_size} ranks and is loaded on {size}: what each rank saved for "
                  "itself (such as random states) is not restored; seed anew", stacklevel=3)
