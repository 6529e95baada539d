"""Saving: everything is written and synced under a temporary name; the rename that completes it comes last."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
import warnings
from typing import Any

import numpy as np

from dtrain import files
from dtrain.distributed.checkpoint import manifest, shardfile
from dtrain.distributed.checkpoint.agree import place, together
from dtrain.distributed.checkpoint.encode import Path, encode
from dtrain.errors import ArgumentError, CheckpointError

SHARED_WAIT = 10.0                    # seconds a rank waits to see the folder rank 0 made, on a slow network file system
_OWN_FILE = re.compile(r"(?!rank-|state$|manifest$)[A-Za-z0-9_][A-Za-z0-9_-]*")


def save(state: dict, directory: str | os.PathLike, step: int, group: Any = None, keep: int | None = None, *,
         per_rank: dict | None = None) -> str:
    """Save ``state`` as the checkpoint of ``step`` in ``directory`` and return the checkpoint's folder.

    ``state``, the same on all ranks, is written by rank 0; ``per_rank`` (random states, say) by every rank for itself.
    Both are nested dicts of Tensors, arrays, numbers, strings, bytes, None, lists, tuples and sets. All ranks of ``group``
    must call this, with ``directory`` on a file system they share; an older checkpoint of the same step is replaced.
    ``keep`` removes all but that many of the newest checkpoints afterwards. A failure on one rank raises CheckpointError
    on all; then nothing of this step remains and the older checkpoints are as they were.
    """
    if keep is not None and keep < 1:
        raise ArgumentError(f"keep must be at least 1 (or None to keep all), got {keep}")
    final = os.path.join(directory, manifest.step_name(step))
    work = final + ".tmp"
    rank, size = place(group)
    what = f"saving the checkpoint {final}"
    try:
        together(group, what, lambda: _begin(directory, work) if rank == 0 else None)
        tag = together(group, what, lambda: {"id": uuid.uuid4().hex, "step": str(int(step))} if rank == 0 else None)[0]
        parts = together(group, what, lambda: _write_parts(work, rank, state, per_rank, tag))
        together(group, what, lambda: _finish(work, final, int(step), tag, parts) if rank == 0 else None)
    except BaseException:
        if rank == 0:
            shutil.rmtree(work, ignore_errors=True)
        raise
    if rank == 0 and keep is not None:
        prune(directory, keep, int(step))
    return final


def _begin(directory: str | os.PathLike, work: str) -> None:
    os.makedirs(directory, exist_ok=True)
    manifest.sweep(directory)
    os.mkdir(work)


def _write_parts(work: str, rank: int, state: dict, per_rank: dict | None, tag: dict) -> dict:
    """Write what this rank is to write; returns its share of the manifest."""
    _wait_for(work)
    share: dict[str, Any] = {"files": {}, "replicated": None, "own": None}
    if rank == 0:
        share["replicated"] = _write_part(work, state, _file_of, tag, share["files"])
    if per_rank is not None:
        share["own"] = _write_part(work, per_rank, lambda path: (f"rank-{rank:05d}.safetensors", path), tag, share["files"])
    return share


def _write_part(work: str, state: dict, place_of: Any, tag: dict, records: dict) -> dict:
    if not isinstance(state, dict):
        raise CheckpointError(f"a state is a dict such as {{'model': model.state_dict()}}, got a {type(state).__name__}")
    tree, arrays = encode(state)
    by_file: dict[str, list[tuple[str, np.ndarray, int]]] = {}
    names: set[tuple[str, str]] = {("", "")}
    for i, (path, array) in enumerate(arrays):
        file, rest = place_of(path)
        name = _unused(file, ".".join(map(str, rest)), names)
        by_file.setdefault(file, []).append((name, array, i))
    tensors: list[Any] = [None] * len(arrays)
    for file, entries in by_file.items():
        records[file], written = shardfile.write(work, file, [(name, a) for name, a, _ in entries], tag)
        for (_, _, i), record in zip(entries, written):
            tensors[i] = record
    return {"state": tree, "tensors": tensors}


def _file_of(path: Path) -> tuple[str, Path]:
    """The file of a replicated array and its path inside: state["model"]["w"] is "w" in model.safetensors."""
    key = path[0]
    if len(path) > 1 and isinstance(key, str) and _OWN_FILE.fullmatch(key):
        return f"{key}.safetensors", path[1:]
    return "state.safetensors", path


def _unused(file: str, name: str, names: set) -> str:
    name = name or "_"
    made, n = name, 1
    while (file, made) in names or made == "__metadata__":
        n += 1
        made = f"{name}#{n}"
    names.add((file, made))
    return made


def _wait_for(folder: str) -> None:
    deadline = time.monotonic() + SHARED_WAIT
    while not os.path.isdir(folder):
        if time.monotonic() > deadline:
            raise CheckpointError(f"rank 0 made {folder}, but it is not visible here; save to a file system that all ranks share")
        time.sleep(0.05)


def _finish(work: str, final: str, step: int, tag: dict, parts: list[dict]) -> None:
    """Write the manifest and give the folder its name."""
    body = {"format": manifest.FORMAT, "version": manifest.VERSION, "id": tag["id"], "step": step, "world_size": len(parts),
            "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "replicated": parts[0]["replicated"],
            "ranks": [p["own"] for p in parts], "files": {k: v for p in parts for k, v in p["files"].items()}}
    files.fsync_dir(work)
    files.write_file(os.path.join(work, manifest.MANIFEST), [files.seal(body)])
    files.fsync_dir(work)
    displaced = _swap_in(work, final)
    try:
        files.fsync_dir(os.path.dirname(final) or ".")
    except OSError:                                        # not known to be durable, so not complete: take the name back
        os.rename(final, work + ".new")
        if displaced:
            os.rename(displaced, final)
        os.rename(work + ".new", work)
        raise
    if displaced:
        shutil.rmtree(displaced, ignore_errors=True)


def _swap_in(work: str, final: str) -> str | None:
    """Rename ``work`` to ``final``; returns where an older ``final`` now is, if there was one.

    Where the file system cannot exchange names (NFS), a crash between two renames loses this step, never another one.
    """
    if not os.path.lexists(final):
        os.rename(work, final)
        return None
    if files.exchange(work, final):
        return work
    aside = f"{final}.old.tmp"
    os.rename(final, aside)
    os.rename(work, final)
    return aside


def prune(directory: str | os.PathLike, keep: int, newest: int) -> None:
    """Remove all but the ``keep`` newest checkpoints up to step ``newest``; what cannot be removed is warned about."""
    for step in [s for s in manifest.steps(directory) if s <= newest][keep:]:
        try:
            manifest.remove(directory, step)
        except OSError as e:
            warnings.warn(f"could not remove the old checkpoint of step {step} in {directory}: {e}", stacklevel=3)
