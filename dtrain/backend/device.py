"""Devices: ``cpu``, ``cuda:N`` and ``meta`` (shapes without memory), and moving raw arrays between them."""

from __future__ import annotations

import operator
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np

from dtrain.backend import state
from dtrain.errors import ArgumentError, DeviceError

TYPES = ("cpu", "cuda", "meta")


class device:
    """Where an array lives, as ``torch.device``: ``device("cuda:1")``, ``device("cuda", 1)``, ``device(1)``.

    Equal devices are one object. ``device("cuda")`` has index None and means the current CUDA device when it is used.
    As a context manager it is the default device of this thread's new tensors.
    Raises DeviceError for an unknown type, ArgumentError for a bad index.
    """

    __slots__ = ("type", "index", "_hash", "__weakref__")
    type: str
    index: int | None

    def __new__(cls, type: str | int | device = "cpu", index: int | None = None, *, device: Any = None) -> device:
        if device is not None:
            type = device
        try:
            return _interned[type, index]  # type: ignore[index]
        except (KeyError, TypeError):
            kind, number = _parse(type, index)
            made = _interned.get((kind, number))
            if made is None:
                made = _make(cls, kind, number)
            return _interned.setdefault((type, index), made) if isinstance(type, str) else made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a device cannot be changed; make another one: device({self.type!r}, index)")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        _entered.stack.append(state.local.device)
        state.local.device = self
        return self

    def __exit__(self, *exc: object) -> None:
        state.local.device = _entered.stack.pop()


class _Entered(threading.local):
    """The default devices to put back when this thread leaves its ``with device(...)`` blocks."""

    def __init__(self) -> None:
        self.stack: list[device | None] = []


_entered = _Entered()
_interned: dict[tuple[Any, int | None], device] = {}


def _make(cls: type, kind: str, index: int | None) -> device:
    made = object.__new__(cls)
    for name, value in (("type", kind), ("index", index), ("_hash", hash((kind, index)))):
        object.__setattr__(made, name, value)
    return _interned.setdefault((kind, index), made)


def _parse(kind: Any, index: Any) -> tuple[str, int | None]:
    """(type, index) of what ``device`` was given."""
    if isinstance(kind, device):
        if index is not None:
            raise ArgumentError(f"device({kind}, {index!r}): the first argument already is a device; leave the index out")
        return kind.type, kind.index
    if isinstance(kind, str):
        name, colon, number = kind.partition(":")
        if name not in TYPES:
            raise DeviceError(f"unknown device {kind!r}; dtrain has cpu, cuda, cuda:N and meta")
        if colon and index is not None:
            raise ArgumentError(f"device({kind!r}, {index!r}) gives the index twice; write device({name!r}, {index!r})")
        if colon and not (number.isascii() and number.isdigit()):
            raise DeviceError(f"invalid device {kind!r}: after the colon comes a number from 0, as in '{name}:0'")
        return name, int(number) if colon else _index(index)
    if isinstance(kind, bool):
        raise ArgumentError(f"a device is a string such as 'cuda:0' or a CUDA device number, not {kind}")
    try:
        return "cuda", _index(operator.index(kind))
    except TypeError:
        raise ArgumentError(f"a device is a string such as 'cuda:0' or a CUDA device number, not {kind!r}") from None


def _index(index: Any) -> int | None:
    if index is None:
        return None
    try:
        number = operator.index(index)
    except TypeError:
        raise ArgumentError(f"a device index is a number from 0, not {index!r}") from None
    if number < 0:
        raise ArgumentError(f"a device index is a number from 0, not {number}")
    return number


CPU = device("cpu")
META = device("meta")
_CUDA = [device("cuda", n) for n in range(16)]


def resolve(where: Any) -> device:
    """The exact device meant: None is the default device, ``cuda`` the current CUDA device, ``cpu:0`` stays so."""
    if where is None:
        where = state.local.device
    if where is None:
        return CPU
    if type(where) is not device:
        where = device(where)
    if where.type == "cuda" and where.index is None:
        from dtrain.backend import cuda

        return device("cuda", cuda.current_device())
    return where


def get_default_device() -> device:
    """The device new tensors of this thread are made on."""
    return resolve(None)


def set_default_device(where: device | str | int | None) -> None:
    """Make ``where`` the device of this thread's new tensors; None is the CPU again."""
    state.local.device = None if where is None else device(where)


def device_of(array: Any) -> device:
    """The device a raw array (``np.ndarray``, ``cupy.ndarray`` or ``MetaArray``) lives on."""
    try:
        found = _by_class[type(array)]
    except KeyError:
        found = _classify(array)
    if found is not None:
        return found
    number = array.device.id
    return _CUDA[number] if number < 16 else device("cuda", number)


_by_class: dict[type, device | None] = {np.ndarray: CPU}  # None: a CuPy array, which knows its own device


def _classify(array: Any) -> device | None:
    """Learn a class seen for the first time. CuPy is not loaded for it: its arrays exist only when it already is."""
    from dtrain.backend.meta import MetaArray

    kind = type(array)
    if isinstance(array, (np.ndarray, np.generic)):
        found: device | None = CPU
    elif isinstance(array, MetaArray):
        found = META
    elif kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] == "cupy":
        found = None
    else:
        raise AssertionError(f"{kind.__module__}.{kind.__qualname__} is no array class of dtrain")
    _by_class[kind] = found
    return found


def move(array: Any, where: device, non_blocking: bool = False) -> Any:
    """``array`` on the device ``where``: itself when it is there already, else a copy.

    ``non_blocking`` lets a copy from the CPU run on after the call; the source must then stay unchanged.
    Raises DeviceError for a meta array, which has no data to move, and where CUDA is absent.
    """
    source = device_of(array)
    where = resolve(where)
    if source.type == where.type and (source.type != "cuda" or source.index == where.index):
        return array
    if source.type == "meta":
        raise DeviceError(f"cannot copy out of a meta tensor, it has no data; make an empty one on {where} (to_empty)")
    if where.type == "meta":
        from dtrain.backend.meta import MetaArray

        return MetaArray(array.shape, array.dtype)
    from dtrain.backend import cuda

    if where.type == "cpu":
        return cuda.to_cpu(array)
    return cuda.to_cuda(array, cuda.check_index(where.index), non_blocking)


def scope(where: device) -> Any:
    """The context in which new arrays land on ``where``: CuPy's device context, nothing elsewhere."""
    if where.type != "cuda":
        return nullcontext()
    from dtrain.backend import cuda

    return cuda.cupy().cuda.Device(resolve(where).index)
