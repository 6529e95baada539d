"""A nested state as JSON that names every type, and the arrays it holds.

JSON alone would turn tuples into lists, integer keys into strings and NaN into an error. Values JSON keeps as they are
stay plain; every other one is an object whose "!" names its type, as in {"!": "tuple", "v": [1, 2]}.
"""

from __future__ import annotations

import base64
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from dtrain.errors import CheckpointError

Path = tuple[Any, ...]
_ML = {name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
_PLAIN = {np.dtype(t).name: np.dtype(t) for t in "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()}
_DTYPES = {**_PLAIN, **_ML}
_OTHER = re.compile(r"[<>|]([USV]\d+|[iufc]\d+|[mM]8(\[\d*\w+\])?)")
_SEQUENCES = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_FROM_NAME = {name: kind for kind, name in _SEQUENCES.items()}


def dtype_name(dtype: np.dtype) -> str:
    """A name that `dtype_of` turns back into ``dtype``: "bfloat16", or NumPy's "<U5" for the unusual."""
    return dtype.name if _DTYPES.get(dtype.name) == dtype else dtype.str


def dtype_of(name: Any) -> np.dtype:
    """The NumPy dtype called ``name``; CheckpointError for one no checkpoint holds."""
    if name in _DTYPES:
        return _DTYPES[name]
    if not isinstance(name, str) or not _OTHER.fullmatch(name):
        raise CheckpointError(f"unknown array dtype {name!r} in a checkpoint")
    return np.dtype(name)


def encode(state: Any) -> tuple[Any, list[tuple[Path, np.ndarray]]]:
    """``state`` as JSON values, and its arrays with the path of keys to each; the JSON names an array by its position.

    Raises CheckpointError naming the path of a value that cannot be saved without pickle.
    """
    arrays: list[tuple[Path, np.ndarray]] = []
    return _encode(state, (), arrays), arrays


def _encode(value: Any, path: Path, arrays: list) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if np.isfinite(value) else {"!": "float", "v": repr(value)}
    if isinstance(value, np.ndarray) or hasattr(value, "_array"):
        return _encode_array(value, path, arrays)
    if kind in (dict, OrderedDict):
        return _encode_dict(value, path, arrays)
    if kind is list:
        return [_encode(v, (*path, i), arrays) for i, v in enumerate(value)]
    if kind in _SEQUENCES:
        return {"!": _SEQUENCES[kind], "v": [_encode(v, (*path, i), arrays) for i, v in enumerate(value)]}
    if kind in (bytes, bytearray):
        return {"!": kind.__name__, "v": base64.b64encode(value).decode()}
    if kind is complex:
        return {"!": "complex", "v": [_encode(value.real, path, arrays), _encode(value.imag, path, arrays)]}
    if isinstance(value, (np.generic, *(d.type for d in _ML.values()))) and not value.dtype.hasobject:
        return {"!": "scalar", "dtype": dtype_name(value.dtype), "v": value.tobytes().hex()}
    raise CheckpointError(f"{show(path)} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint does not hold; save its "
                          "state_dict(), or numbers, strings, bytes, tensors, arrays, and dicts, lists, tuples or sets of them")


def _encode_array(value: Any, path: Path, arrays: list) -> dict:
    array = value if isinstance(value, np.ndarray) else host_array(value)
    if array.dtype.hasobject or array.dtype.names:
        raise CheckpointError(f"{show(path)} is an array of {array.dtype}, which cannot be saved; convert it to numbers or strings")
    arrays.append((path, array))
    return {"!": "array" if array is value else "tensor", "i": len(arrays) - 1}


def host_array(tensor: Any) -> np.ndarray:
    """The values of ``tensor`` in host memory, shared where they already are there."""
    from dtrain.backend import device

    return device.move(tensor._array, device.CPU)


def _encode_dict(value: dict, path: Path, arrays: list) -> dict:
    plain = type(value) is dict and all(type(k) is str and not k.startswith("!") for k in value)
    if plain:
        return {k: _encode(v, (*path, k), arrays) for k, v in value.items()}
    pairs = [[_encode(k, path, []), _encode(v, (*path, k), arrays)] for k, v in value.items()]
    return {"!": type(value).__name__, "v": pairs}


def decode(tree: Any, array: Callable[[int], np.ndarray], tensor: Callable[[np.ndarray], Any]) -> Any:
    """What `encode` was given: ``array(i)`` is array i, ``tensor`` makes a Tensor of an array."""
    if isinstance(tree, list):
        return [decode(v, array, tensor) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "!" not in tree:
        return {k: decode(v, array, tensor) for k, v in tree.items()}
    kind, value = tree["!"], tree.get("v")
    if kind in ("array", "tensor"):
        found = array(tree["i"])
        return found if kind == "array" else tensor(found)
    if kind in ("dict", "OrderedDict"):
        pairs = ((decode(k, array, tensor), decode(v, array, tensor)) for k, v in value)
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind in _FROM_NAME:
        return _FROM_NAME[kind](decode(v, array, tensor) for v in value)
    if kind in ("bytes", "bytearray"):
        return (bytes if kind == "bytes" else bytearray)(base64.b64decode(value))
    if kind == "float":
        return float(value)
    if kind == "complex":
        return complex(*(decode(v, array, tensor) for v in value))
    if kind == "scalar":
        return np.frombuffer(bytes.fromhex(value), dtype_of(tree["dtype"]))[0]
    raise CheckpointError(f"a checkpoint holds a value of unknown type {kind!r}; it was written by a newer dtrain")


def show(path: Path) -> str:
    """``path`` as Python would write it: state['model']['weight']."""
    return "state" + "".join(f"[{key!r}]" for key in path)
