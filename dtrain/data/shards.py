"""A corpus of tokens on disk: equal shards of raw little-endian tokens and a sealed index.

The folder holds `shard-00000.bin`, ..., optionally `documents.bin` (where each document ends, int64) and, written last,
`index.json`. Everything is prepared in a hidden sibling folder and renamed, so a reader sees all of it or nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dtrain import files
from dtrain.errors import ArgumentError, DataError

FORMAT, VERSION = "dtrain-tokens", 1
INDEX, DOCUMENTS = "index.json", "documents.bin"
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "uint16", "uint32")}


def write_shards(documents: Iterable[Any], directory: str | os.PathLike, shard_tokens: int = 1 << 24, dtype: str = "uint8",
                 *, tokenizer: Callable[[Any], Any] | None = None, separator: int | None = None,
                 boundaries: bool = True, overwrite: bool = False) -> dict:
    """Write ``documents`` as a token dataset in ``directory`` and return its index.

    A document is bytes or str (one token a byte, UTF-8), or an integer array; with ``tokenizer``, whatever that takes,
    and it returns the token numbers. ``separator`` is a token added after each document. ``boundaries`` keeps where
    documents end. ``directory`` must be absent or empty, or with ``overwrite`` an older token dataset.
    Raises DataError for an empty corpus, a token that does not fit ``dtype``, or an occupied directory; then nothing is left.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype {dtype!r} is not a token type; choose one of {', '.join(DTYPES)}")
    if shard_tokens < 1:
        raise ArgumentError(f"shard_tokens must be at least 1, got {shard_tokens}")
    target = Path(directory)
    _check_target(target, overwrite)
    ends: list[int] = []
    blocks = _blocks(_encoded(documents, DTYPES[dtype], tokenizer, separator, ends), shard_tokens)
    first = next(blocks, None)
    if first is None:
        raise DataError(f"the corpus is empty: {len(ends)} documents with 0 tokens; nothing was written to {target}")
    work = _work_folder(target)
    try:
        index = _write(work, first, blocks, dtype, ends if boundaries else None, len(ends))
        _publish(work, target, overwrite)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return index


def _encoded(documents: Iterable[Any], dtype: np.dtype, tokenizer: Callable | None, separator: int | None,
             ends: list[int]) -> Iterator[np.ndarray]:
    """Each document as an array of ``dtype``; the running end offsets are appended to ``ends``."""
    total = 0
    tail = None if separator is None else _as_tokens([separator], dtype, "the separator")
    for number, document in enumerate(documents):
        tokens = _as_tokens(document if tokenizer is None else tokenizer(document), dtype, f"document {number}")
        total += len(tokens) + (tail is not None)
        ends.append(total)
        yield tokens
        if tail is not None:
            yield tail


def _as_tokens(document: Any, dtype: np.dtype, what: str) -> np.ndarray:
    if isinstance(document, str):
        document = document.encode()
    if isinstance(document, (bytes, bytearray, memoryview)):
        return np.frombuffer(document, np.uint8).astype(dtype, copy=False)
    tokens = np.asarray(document)
    if tokens.size == 0:
        return np.empty(0, dtype)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise DataError(f"{what} must be bytes, str or a 1-d integer array, got {tokens.dtype} of shape {tokens.shape}")
    low, high, limit = int(tokens.min()), int(tokens.max()), np.iinfo(dtype).max
    if low < 0 or high > limit:
        raise DataError(f"{what} holds token {low if low < 0 else high}, but {dtype.name} holds 0 to {limit}; "
                        "choose a wider dtype")
    return tokens.astype(dtype, copy=False)


def _blocks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The stream of ``pieces`` cut into arrays of ``size`` tokens; the last may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        while count + len(piece) >= size:
            cut = size - count
            yield np.concatenate([*held, piece[:cut]])
            held, count, piece = [], 0, piece[cut:]
        if len(piece):
            held.append(piece)
            count += len(piece)
    if count:
        yield np.concatenate(held)


def _write(work: Path, first: np.ndarray, rest: Iterator[np.ndarray], dtype: str, ends: list[int] | None,
           documents: int) -> dict:
    """Fill folder ``work``; ``ends`` and ``documents`` are complete only once ``rest`` is exhausted."""
    os.mkdir(work)
    sha, shards, block = hashlib.sha256(), [], first
    while block is not None:
        name = f"shard-{len(shards):05d}.bin"
        data = block.view(np.uint8)
        size, crc = files.write_file(work / name, [data])
        sha.update(data)
        shards.append({"file": name, "tokens": len(block), "bytes": size, "crc32c": f"{crc:08x}"})
        block = next(rest, None)
    index = {"format": FORMAT, "version": VERSION, "dtype": dtype, "tokens": sum(s["tokens"] for s in shards),
             "sha256": sha.hexdigest(), "shards": shards, "boundaries": None}
    if ends is not None:
        size, crc = files.write_file(work / DOCUMENTS, [np.asarray(ends, "<i8").view(np.uint8)])
        index["boundaries"] = {"file": DOCUMENTS, "documents": len(ends), "bytes": size, "crc32c": f"{crc:08x}"}
    files.write_file(work / (INDEX + ".tmp"), [files.seal(index)])
    os.rename(work / (INDEX + ".tmp"), work / INDEX)
    files.fsync_dir(work)
    return index


def _check_target(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise DataError(f"{target} exists and is not a folder; choose another directory")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{target} is not empty; choose another directory or allow overwriting (--overwrite)")
    if not (target / INDEX).is_file():
        raise DataError(f"{target} is not empty and holds no {INDEX}, so it is not a token dataset; "
                        "it will not be overwritten: remove it yourself or choose another directory")


def _work_folder(target: Path) -> Path:
    """The hidden folder to prepare in; those of dead processes of this host are removed first."""
    parent = target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    stem = f".{target.name}.tmp-{socket.gethostname()}-"
    for stale in parent.glob(f"{stem}*"):
        pid = stale.name[len(stem):]
        if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(stale, ignore_errors=True)
    return parent / f"{stem}{os.getpid()}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _publish(work: Path, target: Path, overwrite: bool) -> None:
    """Give the finished folder its name; an older dataset of that name is removed after the exchange."""
    if overwrite and target.is_dir() and any(target.iterdir()):
        if not files.exchange(work, target):
            aside = work.with_name(work.name + ".old")
            os.rename(target, aside)
            os.rename(work, target)
            work = aside
        shutil.rmtree(work)
    else:
        os.rename(work, target)
    files.fsync_dir(target.absolute().parent)
