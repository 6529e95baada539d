"""The names and the manifest of checkpoints: which steps a folder holds and which of them are complete."""

from __future__ import annotations

import operator
import os
import re
import shutil
from typing import Any

from dtrain import files
from dtrain.distributed.checkpoint import shardfile
from dtrain.errors import ArgumentError, CheckpointError

FORMAT, VERSION, MANIFEST = "dtrain-checkpoint", 1, "manifest.json"
_STEP, _LEFTOVER = re.compile(r"step-(\d+)"), re.compile(r"step-\d+(\.old)?\.tmp(\.new)?")


def step_name(step: int) -> str:
    """The folder of ``step``: step-00000120."""
    try:
        step = operator.index(step)
    except TypeError:
        raise ArgumentError(f"a step is a whole number from 0, got {step!r}") from None
    if step < 0:
        raise ArgumentError(f"a step is a whole number from 0, got {step}")
    return f"step-{step:08d}"


def steps(directory: str | os.PathLike) -> list[int]:
    """The steps that have a folder in ``directory``, newest first; complete or not."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [int(m[1]) for name in names if (m := _STEP.fullmatch(name)) and step_name(int(m[1])) == name]
    return sorted(found, reverse=True)


def sweep(directory: str | os.PathLike) -> None:
    """Remove what interrupted saves and removals left in ``directory``."""
    for name in os.listdir(directory):
        if _LEFTOVER.fullmatch(name):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def remove(directory: str | os.PathLike, step: int) -> None:
    """Remove a checkpoint so that it never looks complete while half of it is gone."""
    path = os.path.join(directory, step_name(step))
    os.rename(path, path + ".tmp")
    shutil.rmtree(path + ".tmp")


def read(directory: str | os.PathLike, step: int) -> dict:
    """The manifest of ``step``, all its files present with their sizes; CheckpointError saying what is wrong otherwise."""
    folder = os.path.join(directory, step_name(step))
    if not os.path.isdir(folder):
        have = ", ".join(map(str, steps(directory))) or "none"
        raise CheckpointError(f"no checkpoint of step {step} in {directory}; the steps there: {have}")
    where = os.path.join(folder, MANIFEST)
    manifest = files.read_sealed(folder, MANIFEST, CheckpointError)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{where} is not the manifest of a dtrain checkpoint")
    if manifest.get("version") != VERSION:
        raise CheckpointError(f"{where} has format version {manifest.get('version')}, this dtrain reads {VERSION}; upgrade dtrain")
    problem = _problem(manifest)
    if problem:
        raise CheckpointError(f"{where} contradicts itself: {problem}")
    if manifest["step"] != step:
        raise CheckpointError(f"{where} is of step {manifest['step']}, not {step}: folder or manifest was moved from elsewhere")
    for file, record in manifest["files"].items():
        shardfile.check(folder, file, record, whole=False)
    return manifest


def _problem(m: dict) -> str | None:
    """What makes the manifest impossible; its checksum was right, so a person or a bug made it so."""
    try:
        parts = parts_of(m)
        if not (type(m["step"]) is int and len(m["ranks"]) == m["world_size"]):
            return "step or world size"
        for record in m["files"].values():
            if not (_count(record["bytes"]) and _count(record["header"]) and record["crc32c"] and record["header_crc32c"]):
                return "the record of a file"
        for part in parts:
            for t in part["tensors"]:
                numbers = [t["offset"], *t["shape"]]
                if t["file"] not in m["files"] or not all(map(_count, numbers)) or not (t["name"] and t["dtype"] and t["crc32c"]):
                    return "the record of a tensor"
    except (KeyError, TypeError, AttributeError):
        return "a field is missing or has the wrong type"
    return None


def _count(n: Any) -> bool:
    return type(n) is int and n >= 0


def parts_of(manifest: dict) -> list[dict]:
    """The replicated part and those of the ranks that saved one; each has "state" and "tensors"."""
    return [manifest["replicated"], *(r for r in manifest["ranks"] if r is not None)]
