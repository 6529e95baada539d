"""Imports point down: a room imports the rooms of lower layers only, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dtrain

ROOT = Path(__file__).resolve().parents[2]

# Lowest first. Rooms of one layer do not know each other, but for those named in BESIDE.
LAYERS = [
    {"absent", "errors", "env", "logs", "files"},
    {"backend", "_native"},
    {"autograd", "comm"},
    {"ops"},
    {"nn", "optim", "amp", "data"},
    {"distributed", "models", "cuda", "utils"},
    {"onnx", "testing"},
]
LAYER = {room: height for height, layer in enumerate(LAYERS) for room in layer}
BASE = LAYERS[0]
BESIDE = {("files", "errors"), ("env", "errors"), ("backend", "_native")}

# A file, the room it may import although that points up or to the side, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# Packages that only these files and folders may import.
OWNERS = {
    "cupy": ("backend/", "comm/nccl"),
    "cupyx": ("backend/",),
    "mpi4py": ("comm/",),
    "onnx": ("onnx/",),
    "onnxruntime": ("onnx/",),
    "zmq": ("comm/",),
    "torch": (),
    "matplotlib": (),
    "scipy": (),
    "sklearn": (),
}


class Import(NamedTuple):
    file: str           # below dtrain/, such as nn/linear.py
    line: int
    target: str         # the module, such as dtrain.backend.state


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands, those for type checkers excepted."""
    tree = ast.parse(source)
    skipped = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in ast.walk(block)}
    nodes = [node for node in ast.walk(tree) if id(node) not in skipped]
    whole = any(isinstance(node, ast.Import) and any(a.name == "dtrain" for a in node.names) for node in nodes)
    for node in nodes:
        yield from (Import(file, node.lineno, _defined_in(target)) for target in _targets(node, file))
        if whole and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dtrain":
            yield Import(file, node.lineno, _defined_in(f"dtrain.{node.attr}"))


def _defined_in(target: str) -> str:
    """A name of the public surface as the module that defines it: dtrain.Tensor is dtrain.autograd.tensor."""
    package, _, rest = target.partition(".")
    name = rest.split(".")[0]
    if package != "dtrain" or not name or name.startswith("__") or name in dtrain._MODULES or name in LAYER:
        return target
    if (ROOT / "dtrain" / f"{name}.py").exists() or (ROOT / "dtrain" / name).is_dir():
        return target
    return f"dtrain.{dtrain._NAMES.get(name, 'ops')}"


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(node: ast.AST, file: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        here = ("dtrain/" + file).split("/")
        base = ".".join([*here[: len(here) - node.level], *filter(None, [node.module])]) if node.level else str(node.module)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and isinstance(node.args[0], ast.Constant):
        return [node.args[0].value]
    return []


def files() -> Iterator[tuple[str, str]]:
    """(name below dtrain/, source) of every Python file of the library, the launcher as launcher/."""
    for folder, prefix in ((ROOT / "dtrain", ""), (ROOT / "launcher", "launcher/")):
        for path in sorted(folder.rglob("*.py")):
            name = prefix + path.relative_to(folder).as_posix()
            if prefix or not name.startswith(("launcher/", "kernels/")):
                yield name, path.read_text()


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def problem(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    package, *rest = found.target.split(".")
    if package != "dtrain":
        return _outside(found, package)
    source = room(found.file)
    if source in ("cli", "__main__", "__init__"):
        return None
    target = rest[0] if rest else "__init__"
    if target.startswith("__"):
        return None                                     # `import dtrain` itself loads nothing; its attributes are looked at
    if target == source or target in BASE and (source not in BASE or (source, target) in BESIDE):
        return None
    if source == "launcher":
        return f"the launcher imports only {', '.join(sorted(BASE))}"
    if target in ("launcher", "cli"):
        return f"nobody imports {target}"
    if (found.file, target) in EXCEPTIONS or (source, target) in BESIDE:
        return None
    if not {source, target} <= set(LAYER):
        return f"{source} or {target} has no layer; give it one in this file"
    return None if LAYER[target] < LAYER[source] else f"{source} is not above {target}"


def _outside(found: Import, package: str) -> str | None:
    owners = OWNERS.get(package)
    if owners is not None and not found.file.startswith(owners):
        return f"{package} is imported in {' and '.join(owners) or 'no file'} alone"
    if package == "numpy" and (room(found.file) == "launcher" or room(found.file) in BASE):
        return "the standard library alone"
    return None


def test_imports_point_down():
    wrong = [f"{i.file}:{i.line} imports {i.target}: {why}" for name, text in files() for i in imports_of(text, name) if (why := problem(i))]
    assert not wrong, "\n".join(wrong)


def test_every_allowance_is_used():
    used = {(i.file, i.target.split(".")[1]) for name, text in files() for i in imports_of(text, name) if i.target.startswith("dtrain.")}
    used |= {(room(file), target) for file, target in used}
    assert set(EXCEPTIONS) | BESIDE <= used


@pytest.mark.parametrize(
    "file, source",
    [
        ("backend/x.py", "from dtrain.autograd.tensor import Tensor"),
        ("comm/x.py", "def f():\n    from dtrain.autograd import tensor"),
        ("nn/x.py", "import dtrain.distributed"),
        ("nn/x.py", "from ..optim import sgd"),
        ("nn/x.py", "import importlib\nimportlib.import_module('dtrain.models')"),
        ("backend/x.py", "def f():\n    import dtrain\n    dtrain.Tensor(1)"),
        ("autograd/x.py", "import dtrain\ndtrain.add(1, 2)"),
        ("comm/x.py", "from dtrain import Tensor"),
        ("optim/x.py", "from dtrain.launcher import hosts"),
        ("launcher/x.py", "from dtrain.backend import native"),
        ("launcher/x.py", "import numpy as np"),
        ("errors.py", "import numpy"),
        ("errors.py", "from dtrain import logs"),
        ("ops/x.py", "import cupy"),
        ("nn/x.py", "from mpi4py import MPI"),
        ("new_room/x.py", "from dtrain.ops import table"),
    ],
)
def test_an_arrow_that_points_up_is_seen(file, source):
    assert any(problem(found) for found in imports_of(source, file))


@pytest.mark.parametrize(
    "file, source",
    [
        ("nn/x.py", "from dtrain.ops import table\nfrom dtrain.errors import ShapeError\nfrom dtrain.nn.module import Module\nimport numpy"),
        ("comm/mpi/x.py", "from mpi4py import MPI\nfrom . import y"),
        ("launcher/x.py", "from dtrain import env\nfrom .spec import LaunchSpec"),
        ("cli.py", "import dtrain\nfrom dtrain.launcher import run"),
        ("launcher/x.py", "import dtrain\nprint(dtrain.__version__)"),
        ("data/x.py", "import dtrain\ndtrain.from_numpy(1)"),
        ("backend/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dtrain.autograd.tensor import Tensor"),
    ],
)
def test_an_arrow_that_points_down_is_fine(file, source):
    assert not any(problem(found) for found in imports_of(source, file))
