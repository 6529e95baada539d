"""Files that can be trusted: written whole or not at all, opened only where they belong, checksummed.

Index and manifest files are "sealed" JSON: one line holding the CRC-32C of the exact bytes of its body, so that any
flipped bit in them is noticed before a value is used.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from collections.abc import Iterable
from typing import Any

from dtrain.errors import DataError, DtrainError

MAX_JSON = 1 << 30                       # bytes; a sealed file larger than this is refused before it is read
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_PREFIX, _SUFFIX = b'{"crc32c":"%08x","body":', b"}\n"


def crc32c(data: Any, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of a bytes-like object, continuing from ``value``."""
    from crc32c import crc32c as compute

    return compute(data, value)


def open_beneath(base: str | os.PathLike, name: str, error: type[DtrainError] = DataError) -> int:
    """A read-only descriptor of the regular file ``name`` under ``base``.

    ``name`` comes from a file and is not trusted: absolute names, "..", symbolic links at any level below ``base`` and
    files with several hard links are refused. Raises ``error`` naming the file.
    """
    parts = _parts(name, error)
    where = os.path.join(base, name)
    try:
        folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise error(f"cannot open folder {base}: {e.strerror}") from None
    try:
        for part in parts[:-1]:
            inner = _open_at(folder, part, os.O_DIRECTORY, where, error)
            os.close(folder)
            folder = inner
        fd = _open_at(folder, parts[-1], os.O_NONBLOCK, where, error)      # O_NONBLOCK: a FIFO must not block us
    finally:
        os.close(folder)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        os.close(fd)
        reason = f"it has {info.st_nlink} hard links" if stat.S_ISREG(info.st_mode) else "it is not a regular file"
        raise error(f"refusing to open {where}: {reason}; replace it by a plain copy of the file")
    return fd


def _parts(name: str, error: type[DtrainError]) -> list[str]:
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or any(p in ("", ".", "..") or "\\" in p or "\0" in p for p in parts):
        raise error(f"unsafe file name {name!r}: expected a relative name without '..', as in 'shard-00000.bin'")
    return parts


def _open_at(folder: int, part: str, flag: int, where: str, error: type[DtrainError]) -> int:
    try:
        return os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flag, dir_fd=folder)
    except FileNotFoundError:
        raise error(f"{where} is missing") from None
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise error(f"refusing to open {where}: {part!r} is a symbolic link or not a folder") from None
        raise error(f"cannot open {where}: {e.strerror}") from e


def safe_join(base: str | os.PathLike, name: str, error: type[DtrainError] = DataError) -> str:
    """``base/name`` after the checks of `open_beneath`; a file that does not exist yet is an ``error`` too."""
    os.close(open_beneath(base, name, error))
    return os.path.join(base, name)


def write_file(path: str | os.PathLike, chunks: Iterable[Any]) -> tuple[int, int]:
    """Create ``path`` (it must not exist), write the bytes-like ``chunks``, fsync; returns (bytes, crc32c)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        size = crc = 0
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            crc, size = crc32c(view, crc), size + len(view)
            _write_all(fd, view)
        os.fsync(fd)
    finally:
        os.close(fd)
    return size, crc


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view[: 1 << 30]):]          # Linux writes at most 2 GiB a call


def fsync_dir(path: str | os.PathLike) -> None:
    """Make the names inside folder ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno != errno.EINVAL:                          # some network file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


def exchange(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Swap the names ``a`` and ``b`` in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def seal(body: Any) -> bytes:
    """``body`` (JSON values) as sealed JSON."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    return _PREFIX % crc32c(text) + text + _SUFFIX


def unseal(data: bytes, where: str, error: type[DtrainError] = DataError) -> Any:
    """The body of sealed JSON read from ``where``; raises ``error`` if a single bit differs from what was written."""
    start = len(_PREFIX % 0)
    text = data[start: -len(_SUFFIX)]
    if data[:start] != _PREFIX % crc32c(text) or data[-len(_SUFFIX):] != _SUFFIX:
        raise error(f"{where} is damaged: its checksum does not match its {len(data)} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise error(f"{where} is not readable: {e}") from None


def read_sealed(base: str | os.PathLike, name: str, error: type[DtrainError] = DataError) -> Any:
    """The body of the sealed JSON file ``name`` in folder ``base``."""
    where = os.path.join(base, name)
    with open(open_beneath(base, name, error), "rb") as f:
        if os.fstat(f.fileno()).st_size > MAX_JSON:
            raise error(f"{where} is larger than {MAX_JSON} bytes; this cannot be an index")
        return unseal(f.read(), where, error)
