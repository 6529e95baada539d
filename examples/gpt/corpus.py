"""The corpus: the source of Python's standard library on this machine, cut into training and held-out files."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from pathlib import Path

from dtrain.data import TokenDataset, write_shards

SKIP = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_bundled"}
HELD_OUT = 20  # one file in twenty is for validation only


def source_files() -> list[Path]:
    """Every .py file of the standard library, tests and installed packages left out, in one order everywhere."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in SKIP)
        found += [Path(folder, f) for f in sorted(files) if f.endswith(".py")]
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Whole files for training and for validation, by a hash of the name: the same choice on every machine."""

    def held_out(path: Path) -> bool:
        return int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % HELD_OUT == 0

    return [p for p in files if not held_out(p)], [p for p in files if held_out(p)]


def build(folder: Path) -> None:
    """Write both parts as checked shards of bytes, unless they are there already."""
    for part, files in zip(("train", "val"), split(source_files())):
        if not (folder / part / "index.json").exists():
            write_shards((path.read_bytes() for path in files), folder / part)


def load(folder: Path) -> tuple[TokenDataset, TokenDataset]:
    """The training and the held-out tokens, one a byte."""
    return TokenDataset(folder / "train"), TokenDataset(folder / "val")
