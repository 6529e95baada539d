"""Write ``surface.json``: what the installed CuPy has, by name, with parameters and ufunc loops.

    python -m tests.standin.record            # after installing the CuPy the stand-in shall imitate

The stand-in exposes a name only if it is in that file, so that it never has more than CuPy.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("surface.json")
MODULES = ("cupy", "cupy.cuda", "cupy.cuda.runtime", "cupy.cuda.nvrtc", "cupy.cuda.memory", "cupy.random", "cupy.linalg",
           "cupy.fft", "cupy.exceptions", "cupyx")  # fmt: skip
CLASSES = ("cupy.ndarray", "cupy.ufunc", "cupy.RawKernel", "cupy.RawModule", "cupy.cuda.Device", "cupy.cuda.Stream",
           "cupy.cuda.Event", "cupy.cuda.MemoryPool", "cupy.cuda.MemoryPointer", "cupy.cuda.PinnedMemoryPool",
           "cupy.random.RandomState", "cupy.random.Generator")  # fmt: skip


def parameters(thing: Any) -> Any:
    """Names of a function's parameters ('*' and '**' for the open ends), a ufunc's loops, or None."""
    if isinstance(getattr(thing, "types", None), list):
        return {"ufunc": list(thing.types)}
    if inspect.isclass(thing) or not callable(thing):
        return None
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [marks.get(p.kind, "") + p.name for p in found]


def surface() -> dict[str, Any]:
    """{"version": ..., "cupy": {name: parameters}, ..., "cupy.ndarray": {...}} of the installed CuPy."""
    import cupy

    out: dict[str, Any] = {"version": cupy.__version__}
    for path in MODULES + CLASSES:
        holder = resolve(path)
        out[path] = {}
        for name in sorted(set(dir(holder)) - set(dir(object)) if path in CLASSES else dir(holder)):
            if path in CLASSES or not name.startswith("_"):
                found = getattr(holder, name, None)
                out[path][name] = parameters(found)
    out["loops"] = {name: list(ufunc.types) for name, ufunc in inner_ufuncs().items()}
    return out


def inner_ufuncs() -> dict[str, Any]:
    """Functions of CuPy that are a ufunc inside, whose loops decide their result's dtype."""
    from cupy._core._routines_math import _clip
    from cupy._sorting.search import _where_ufunc

    return {"clip": _clip, "where": _where_ufunc}


def resolve(path: str) -> Any:
    """The module or class a dotted name stands for."""
    first, *rest = path.split(".")
    found = __import__(first)
    for name in rest:
        found = getattr(found, name)
    return found


if __name__ == "__main__":
    text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in surface().items()) + "\n}"
    FILE.write_text(text + "\n")
    print(f"{FILE}: {len(text)} bytes", file=sys.stderr)
