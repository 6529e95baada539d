"""Which functions of CuPy dtrain calls and with which arguments, read from its source; and whether CuPy has them.

    python tests/backend/api_check.py        # prints what the installed CuPy does not have, if anything
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any, Iterator, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
UFUNC_KEYWORDS = {"out", "dtype", "casting"}
NAMES_OF_CUPY = {"cupy", "module", "cp"}  # variables that hold the CuPy module in backend/ and comm/


class Use(NamedTuple):
    """``path`` as ``sum`` or ``cuda.Device``; for a call the number of positions and the keywords, else None."""

    path: str
    positions: int | None
    keywords: tuple[str, ...]
    where: str


def uses_in(source: str, file: str = "?") -> Iterator[Use]:
    """Every ``xp.name`` and every dotted name that starts at the CuPy module, in one file's source."""
    tree = ast.parse(source)
    inner: set[ast.AST] = set()
    called: dict[ast.AST, ast.Call] = {n.func: n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node in inner:
            continue
        chain, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            inner.add(base)
            chain.insert(0, base.attr)
            base = base.value
        if not _is_array_module(base, file):
            continue
        whole = not _is_xp(base) or len(chain) == 1
        if not whole:
            chain = chain[:1]  # what follows belongs to an array or a string: xp.name.upper()
        call = called.get(node) if whole else None
        positions = None if call is None or any(isinstance(a, ast.Starred) for a in call.args) else len(call.args)
        keywords = () if call is None else tuple(k.arg for k in call.keywords if k.arg)
        yield Use(".".join(chain), positions, keywords, f"{file}:{node.lineno}")


def _is_xp(base: ast.AST) -> bool:
    return isinstance(base, ast.Name) and base.id == "xp"


def _is_array_module(base: ast.AST, file: str) -> bool:
    if _is_xp(base):
        return True
    if isinstance(base, ast.Call):  # cupy().x and cuda.cupy().x
        base = base.func
        return (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")) == "cupy"
    cuda_code = Path(file).name.startswith(("cuda", "kernels", "nccl"))
    return isinstance(base, ast.Name) and base.id in NAMES_OF_CUPY and (base.id == "cupy" or cuda_code)


def uses() -> list[Use]:
    """All uses in dtrain's source."""
    files = sorted((ROOT / "dtrain").rglob("*.py"))
    return [use for file in files for use in uses_in(file.read_text(), str(file.relative_to(ROOT)))]


def problem(use: Use, cupy: Any) -> str | None:
    """Why CuPy does not take this use, or None."""
    found = cupy
    for name in use.path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            return f"{use.where}: CuPy {cupy.__version__} has no {use.path}"
        except ImportError:
            return None  # a CUDA library that is not installed here, such as cuBLAS
    if use.positions is None and not use.keywords:
        return None
    return _call_problem(use, found)


def _call_problem(use: Use, function: Any) -> str | None:
    call = f"{use.where}: {use.path} with {use.positions} positions and keywords {list(use.keywords)}"
    if isinstance(getattr(function, "types", None), list):
        if not set(use.keywords) <= UFUNC_KEYWORDS:
            return f"{call}: a ufunc of CuPy takes only {sorted(UFUNC_KEYWORDS)}"
        fits = use.positions is None or function.nin <= use.positions <= function.nin + function.nout
        return None if fits else f"{call}: takes {function.nin} inputs"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None  # compiled, says nothing of its parameters
    try:
        signature.bind_partial(*[None] * (use.positions or 0), **dict.fromkeys(use.keywords))
    except TypeError as error:
        return f"{call}: {error}; it has {signature}"
    return None


def main() -> list[str]:
    """Problems of all uses and of the closed list, against the installed CuPy."""
    import cupy

    from dtrain.backend import namespace
    from dtrain.ops.namespace import TensorNamespace

    own = {*vars(namespace.numpy), *vars(namespace.Namespace), *vars(TensorNamespace)}
    ours = own - {*namespace.FUNCTIONS, *namespace.FORWARD_ONLY}  # run, cast, with_history and their kin
    listed = [Use(name, None, (), "backend/namespace.py") for name in namespace.FUNCTIONS + namespace.FORWARD_ONLY]
    found = [problem(use, cupy) for use in [*listed, *uses()] if use.path.split(".")[0] not in ours]
    return sorted({text for text in found if text})


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    found = main()
    print("\n".join(found))
    sys.exit(bool(found))
