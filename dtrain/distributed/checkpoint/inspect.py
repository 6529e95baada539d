"""What a checkpoint holds, without reading its tensors, and how that differs from a state at hand."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from typing import Any

from dtrain.distributed.checkpoint import manifest
from dtrain.distributed.checkpoint.encode import dtype_name, encode
from dtrain.distributed.checkpoint.loading import latest
from dtrain.errors import CheckpointError


@dataclass(frozen=True)
class Description:
    """``tensors`` maps the dotted path of each replicated tensor to (dtype, shape)."""

    path: str
    step: int
    world_size: int
    saved: str
    bytes: int
    tensors: dict[str, tuple[str, tuple[int, ...]]]

    def __str__(self) -> str:
        lines = [f"{self.path}: step {self.step}, saved {self.saved} by {self.world_size} ranks, {self.bytes:,} bytes"]
        return "\n".join(lines + [f"  {name}  {dtype}{list(shape)}" for name, (dtype, shape) in self.tensors.items()])


@dataclass(frozen=True)
class Difference:
    """Keys the state has and the checkpoint lacks, the reverse, and those whose shape or dtype differ; true if any."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.changed)

    def __str__(self) -> str:
        parts = [("missing from the checkpoint", self.missing), ("only in the checkpoint", self.unexpected), ("different", self.changed)]
        return "; ".join(f"{title}: {', '.join(items)}" for title, items in parts if items) or "no difference"


def describe(path: str | os.PathLike) -> Description:
    """Describe the checkpoint folder ``path``, or the newest complete one if ``path`` is the folder of several."""
    directory, step = _locate(os.fspath(path))
    found = manifest.read(directory, step)
    tree, records = found["replicated"]["state"], found["replicated"]["tensors"]
    tensors = {name: (records[i]["dtype"], tuple(records[i]["shape"])) for name, i in _leaves(tree, ())}
    return Description(os.path.join(directory, manifest.step_name(step)), step, found["world_size"], found["saved"],
                       sum(r["bytes"] for r in found["files"].values()), tensors)


def compare(path: str | os.PathLike, state: dict) -> Difference:
    """How the tensors of ``state`` differ from those under the same top-level keys of the checkpoint at ``path``."""
    theirs = {k: v for k, v in describe(path).tensors.items() if k.split(".")[0] in set(map(str, state))}
    mine = {".".join(map(str, p)): (dtype_name(a.dtype), a.shape) for p, a in encode(state)[1]}
    missing = []
    for name in mine.keys() - theirs.keys():
        close = difflib.get_close_matches(name, theirs.keys() - mine.keys(), 1)
        missing.append(name + (f" (it has {close[0]})" if close else ""))
    changed = [f"{k} is {_text(theirs[k])} in the checkpoint, {_text(mine[k])} here" for k in mine if k in theirs and mine[k] != theirs[k]]
    return Difference(sorted(missing), sorted(theirs.keys() - mine.keys()), changed)


def _text(entry: tuple) -> str:
    return f"{entry[0]}{list(entry[1])}"


def _locate(path: str) -> tuple[str, int]:
    path = path.rstrip("/")
    name = os.path.basename(path)
    if name.startswith("step-") and name[5:].isdigit():
        return os.path.dirname(path) or ".", int(name[5:])
    step = latest(path)
    if step is None:
        raise CheckpointError(f"no complete checkpoint in {path}")
    return path, step


def _leaves(tree: Any, path: tuple) -> list[tuple[str, int]]:
    """(dotted path, number) of the arrays in an encoded ``tree``."""
    if isinstance(tree, list):
        pairs: Any = enumerate(tree)
    elif not isinstance(tree, dict):
        return []
    elif tree.get("!") in ("array", "tensor"):
        return [(".".join(map(str, path)), tree["i"])]
    elif tree.get("!") in ("dict", "OrderedDict"):
        pairs = tree["v"]
    elif "!" in tree:
        pairs = enumerate(tree["v"]) if isinstance(tree.get("v"), list) else []
    else:
        pairs = tree.items()
    return [leaf for key, value in pairs for leaf in _leaves(value, (*path, key))]
