"""What CuPy has: the names of ``surface.json``, and calls checked against the parameters recorded there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import ml_dtypes
import numpy as np

RECORD: dict[str, Any] = json.loads(Path(__file__).with_name("surface.json").read_text())
VERSION: str = RECORD["version"]
BF16 = np.dtype(ml_dtypes.bfloat16)


def has(path: str, name: str) -> bool:
    """Does the module or class ``path`` of CuPy have ``name``?"""
    return name in RECORD[path]


def types(name: str) -> list[str] | None:
    """Loops of the ufunc ``cupy.<name>``, or of the one inside that function, as text; None for what is none."""
    found = RECORD["cupy"].get(name)
    return found["ufunc"] if isinstance(found, dict) else RECORD["loops"].get(name)


def loops(name: str) -> list[tuple[tuple[np.dtype, ...], tuple[np.dtype, ...]]] | None:
    """(input dtypes, output dtypes) of each loop of the ufunc ``cupy.<name>``; None for what is no ufunc."""
    texts = types(name)
    if texts is None:
        return None
    sides = [text.split("->") for text in texts]
    return [(tuple(map(dtype_of_letter, i)), tuple(map(dtype_of_letter, o))) for i, o in sides]


def dtype_of_letter(letter: str) -> np.dtype:
    """NumPy's dtype of a loop letter; CuPy writes bfloat16 as ``E``."""
    return BF16 if letter == "E" else np.dtype(letter)


def checked(path: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` that takes only what CuPy's ``path.name`` takes: as many positions, the same keywords."""
    if not has(path, name):
        raise AssertionError(f"CuPy {VERSION} has no {path}.{name}; the stand-in must not have it either")
    parameters = RECORD[path][name]
    if not isinstance(parameters, list):
        return function
    open_positions = any(p.startswith("*") and not p.startswith("**") for p in parameters)
    open_keywords = any(p.startswith("**") for p in parameters)
    known = {p for p in parameters if not p.startswith("*")}
    most = len(known)

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > most and not open_positions:
            raise TypeError(f"{name}() takes {most} positional arguments but {len(args)} were given")
        if kwargs and not open_keywords and not known.issuperset(kwargs):
            raise TypeError(f"cupy's {name}() got an unexpected keyword argument {sorted(set(kwargs) - known)[0]!r}; it has {sorted(known)}")
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__module__ = path
    call.__doc__ = f"{path}.{name} of the stand-in."
    return call
