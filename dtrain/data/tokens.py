"""TokenDataset: the reader of what `shards.write_shards` wrote."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

from dtrain import files
from dtrain.data.dataset import Dataset
from dtrain.data.shards import DTYPES, FORMAT, INDEX, VERSION
from dtrain.errors import ArgumentError, DataError, IndexRangeError

_REMEDY = "copy it again or write the dataset anew with `python -m dtrain data shard`"


class TokenDataset(Dataset):
    """A read-only sequence of tokens in memory-mapped shards.

    Sizes of all shards are checked at once. ``verify="crc"`` also checks a shard's CRC-32C the first time it is read
    (about 0.1 s a GiB), ``verify="size"`` does not. Raises DataError naming the shard that is missing, truncated,
    grown or damaged.
    """

    def __init__(self, path: str | os.PathLike, verify: str = "crc") -> None:
        if verify not in ("crc", "size"):
            raise ArgumentError(f"verify={verify!r} is not known; choose 'crc' or 'size'")
        self.path, self._check_crc = os.fspath(path), verify == "crc"
        self.index = _read_index(self.path)
        self.dtype = DTYPES[self.index["dtype"]]
        self.shards = self.index["shards"]
        self.sha256: str = self.index["sha256"]
        self._starts = np.cumsum([0] + [s["tokens"] for s in self.shards])
        self._maps: list[np.ndarray | None] = [None] * len(self.shards)
        self._ends: np.ndarray | None = None
        for shard in self.shards:
            os.close(self._open(shard))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ArgumentError(f"a token dataset is sliced with step 1, got step {step}")
            return self.read(start, max(0, stop - start))
        return int(self.read(index + len(self) if index < 0 else index, 1)[0])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_maps": [None] * len(self.shards)}        # a worker process maps for itself

    @property
    def document_ends(self) -> np.ndarray:
        """Where each document ends, as int64 token offsets; DataError if the dataset was written without boundaries."""
        if self._ends is None:
            entry = self.index["boundaries"]
            if entry is None:
                raise DataError(f"{self.path} keeps no document boundaries; write it with boundaries=True")
            with open(self._open(entry), "rb") as f:
                data = f.read()
            _check_crc(os.path.join(self.path, entry["file"]), data, entry["crc32c"])
            self._ends = np.frombuffer(data, "<i8")
        return self._ends

    def read(self, start: int, count: int) -> np.ndarray:
        """``count`` tokens from offset ``start`` on, of the dataset's dtype, across shard borders."""
        if count < 0 or not 0 <= start <= start + count <= len(self):
            raise IndexRangeError(f"tokens [{start}, {start + count}) are outside the dataset's [0, {len(self)})")
        out = np.empty(count, self.dtype)
        self._read_into(out, start)
        return out

    def windows(self, starts: Any, length: int) -> np.ndarray:
        """The windows of ``length`` tokens at offsets ``starts`` (n integers), as int64 of shape (n, length)."""
        out = np.empty((len(starts), length), np.int64)
        for row, start in zip(out, starts):
            if not 0 <= start <= start + length <= len(self):
                raise IndexRangeError(f"window [{start}, {start + length}) is outside the dataset's [0, {len(self)})")
            self._read_into(row, int(start))
        return out

    def verify(self) -> None:
        """Check every shard's checksum now; DataError naming the first that is damaged."""
        for i in range(len(self.shards)):
            self._shard(i, check=True)

    def _read_into(self, out: np.ndarray, start: int) -> None:
        i = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < len(out):
            piece = self._shard(i)[start + done - int(self._starts[i]):][: len(out) - done]
            out[done: done + len(piece)] = piece
            done, i = done + len(piece), i + 1

    def _shard(self, i: int, check: bool = False) -> np.ndarray:
        tokens = self._maps[i]
        if tokens is None or check:
            with open(self._open(self.shards[i]), "rb") as f:
                tokens = np.frombuffer(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ), self.dtype)
            if check or self._check_crc:
                _check_crc(os.path.join(self.path, self.shards[i]["file"]), tokens.view(np.uint8), self.shards[i]["crc32c"])
            self._maps[i] = tokens
        return tokens

    def _open(self, entry: dict) -> int:
        """A descriptor of the file ``entry`` names, its size checked."""
        fd = files.open_beneath(self.path, entry["file"])
        size = os.fstat(fd).st_size
        if size != entry["bytes"]:
            os.close(fd)
            state = "truncated" if size < entry["bytes"] else "longer than it was"
            raise DataError(f"{os.path.join(self.path, entry['file'])} is {state}: it has {size} bytes, "
                            f"the index says {entry['bytes']}; {_REMEDY}")
        return fd


def _check_crc(where: str, data: Any, expected: str) -> None:
    found = f"{files.crc32c(data):08x}"
    if found != expected:
        raise DataError(f"{where} is damaged: its crc32c is {found}, the index says {expected}; {_REMEDY}")


def _read_index(path: str) -> dict:
    if not os.path.isdir(path):
        raise DataError(f"no token dataset at {path}: there is no such folder; write one with `python -m dtrain data shard`")
    index = files.read_sealed(path, INDEX)
    where = os.path.join(path, INDEX)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{where} is not the index of a token dataset")
    if index.get("version") != VERSION:
        raise DataError(f"{where} has format version {index.get('version')}, this dtrain reads {VERSION}; upgrade dtrain")
    try:
        itemsize = DTYPES[index["dtype"]].itemsize
        sound = all(_is_count(s["tokens"]) and s["bytes"] == s["tokens"] * itemsize and isinstance(s["crc32c"], str)
                    for s in index["shards"])
        sound = sound and isinstance(index["sha256"], str)
        sound = sound and index["tokens"] == sum(s["tokens"] for s in index["shards"]) and index["shards"]
        entry = index["boundaries"]
        sound = sound and (entry is None or entry["bytes"] == 8 * entry["documents"] and entry["crc32c"])
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise DataError(f"{where} contradicts itself: dtype, token counts and sizes do not agree; {_REMEDY}")
    return index


def _is_count(n: Any) -> bool:
    return type(n) is int and n > 0
