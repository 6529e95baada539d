"""One safetensors file: written in a stream with checksums on the way, read back tensor by tensor and checked.

The layout is safetensors' (eight bytes of header length, a JSON header, the data without gaps), so any reader of that
format opens it; ours goes by the records in the manifest and never parses the header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dtrain import files
from dtrain.distributed.checkpoint.encode import dtype_name, dtype_of
from dtrain.errors import CheckpointError

_PIECE = 1 << 20                     # bytes read or written, and checksummed while they are in the cache
_CODES = {"bool": "BOOL", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
          **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}}


def write(folder: str, file: str, named: Sequence[tuple[str, np.ndarray]], metadata: dict[str, str]) -> tuple[dict, list[dict]]:
    """Write the arrays to ``folder/file``; returns the record of the file and those of the tensors, in the order given."""
    order = sorted(range(len(named)), key=lambda i: -named[i][1].itemsize)           # so every tensor is aligned
    records: list[Any] = [None] * len(named)
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for i in order:
        name, a = named[i]
        dtype = dtype_name(a.dtype)
        records[i] = {"file": file, "name": name, "dtype": dtype, "shape": list(a.shape), "offset": offset}
        code = _CODES.get(dtype)
        header[name] = {"dtype": code or "U8", "shape": list(a.shape) if code else [a.nbytes],
                        "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    size, crc = files.write_file(os.path.join(folder, file), _chunks(head, [(named[i][1], records[i]) for i in order]))
    return {"bytes": size, "crc32c": f"{crc:08x}", "header": len(head), "header_crc32c": f"{files.crc32c(head):08x}"}, records


def _chunks(head: bytes, arrays: list[tuple[np.ndarray, dict]]) -> Iterator[Any]:
    yield head
    for a, record in arrays:
        data = memoryview(np.asarray(a, order="C").reshape(-1).view(np.uint8))
        crc = 0
        for start in range(0, len(data), _PIECE):
            piece = data[start: start + _PIECE]
            crc = files.crc32c(piece, crc)
            yield piece
        record["crc32c"] = f"{crc:08x}"


def read(folder: str, file: str, record: dict, tensors: Sequence[dict], verify: bool) -> list[np.ndarray]:
    """The arrays of ``tensors``, all the records of ``file``, as new arrays.

    Raises CheckpointError naming the file and the tensor if size or, with ``verify``, a checksum is not as recorded.
    """
    where = os.path.join(folder, file)
    with open(files.open_beneath(folder, file, CheckpointError), "rb", buffering=0) as f:
        check_size(where, os.fstat(f.fileno()).st_size, record)
        head = f.read(record["header"])
        if verify and f"{files.crc32c(head):08x}" != record["header_crc32c"]:
            raise CheckpointError(f"{where}: its header is damaged or the file belongs to another checkpoint" + _owner(head))
        arrays: list[Any] = [None] * len(tensors)
        offset = 0
        for i in sorted(range(len(tensors)), key=lambda i: (tensors[i]["offset"], 0 not in tensors[i]["shape"])):
            arrays[i] = _read_one(f, where, tensors[i], offset, verify, record["bytes"])
            offset += arrays[i].nbytes
        if record["header"] + offset != record["bytes"]:
            raise CheckpointError(f"{where}: the manifest's tensors do not fill the file")
    return arrays


def _read_one(f: Any, where: str, tensor: dict, offset: int, verify: bool, limit: int) -> np.ndarray:
    dtype = dtype_of(tensor["dtype"])
    nbytes = dtype.itemsize
    for n in tensor["shape"]:
        nbytes *= n
    if tensor["offset"] != offset or not 0 <= nbytes <= limit or min(tensor["shape"], default=0) < 0:
        raise CheckpointError(f"{where}: the manifest's place for tensor {tensor['name']!r} is impossible")
    array = np.empty(tensor["shape"], dtype)
    data = memoryview(array.reshape(-1).view(np.uint8))
    done = crc = 0
    while done < nbytes:
        piece = data[done: done + _PIECE]
        count = f.readinto(piece)
        if not count:
            raise CheckpointError(f"{where} ends inside tensor {tensor['name']!r}")
        crc = files.crc32c(piece[:count], crc) if verify else crc
        done += count
    if verify and f"{crc:08x}" != tensor["crc32c"]:
        raise CheckpointError(f"{where}: tensor {tensor['name']!r} is damaged: its checksum does not match")
    return array


def check(folder: str, file: str, record: dict, whole: bool) -> None:
    """CheckpointError unless ``file`` has its recorded size and, if ``whole``, checksum."""
    where = os.path.join(folder, file)
    with open(files.open_beneath(folder, file, CheckpointError), "rb") as f:
        check_size(where, os.fstat(f.fileno()).st_size, record)
        crc = 0
        while whole and (block := f.read(1 << 24)):
            crc = files.crc32c(block, crc)
    if whole and f"{crc:08x}" != record["crc32c"]:
        raise CheckpointError(f"{where} is damaged: its checksum does not match")


def check_size(where: str, size: int, record: dict) -> None:
    """CheckpointError if ``size`` is not the recorded one."""
    if size != record["bytes"]:
        state = "truncated" if size < record["bytes"] else "longer than it was"
        raise CheckpointError(f"{where} is {state}: it has {size} bytes, the manifest says {record['bytes']}")


def _owner(head: bytes) -> str:
    """Which checkpoint a readable header says it is of, as a hint."""
    try:
        return f" (it says: step {json.loads(head[8:])['__metadata__']['step']})"
    except (ValueError, KeyError, TypeError):
        return ""
