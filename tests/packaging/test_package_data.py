"""The package that is built holds what the checkout holds."""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from pathlib import Path

import pytest
import setuptools

import dtrain

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_kernel_source_is_package_data():
    globs = PROJECT["tool"]["setuptools"]["package-data"]["dtrain"]
    packed = {path for pattern in globs for path in (ROOT / "dtrain").glob(pattern)}
    missing = [str(path) for path in (ROOT / "dtrain" / "kernels").rglob("*") if path.is_file() and path not in packed]
    assert not missing
    assert not list((ROOT / "kernels").rglob("*.py")), "kernels/ holds C++ and CUDA alone"


def test_every_glob_finds_something():
    for pattern in PROJECT["tool"]["setuptools"]["package-data"]["dtrain"]:
        assert list((ROOT / "dtrain").glob(pattern)), pattern


def test_every_module_is_in_a_package_that_is_found():
    """A folder without __init__.py is left out of the wheel without a word."""
    find = PROJECT["tool"]["setuptools"]["packages"]["find"]
    found = set(setuptools.find_packages(str(ROOT), include=find["include"]))
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "dtrain").rglob("*.py")}
    folders |= {f"dtrain.{path.parent.name}" for path in (ROOT / "launcher").glob("*.py")}
    assert folders <= found and "dtrain.launcher" in found


@pytest.mark.parametrize("name", ["launcher", "kernels"])
def test_folders_at_the_top_are_linked_into_the_package(name):
    link = ROOT / "dtrain" / name
    assert link.is_symlink() and link.readlink() == Path("..") / name


def test_sources_of_the_extension_are_named_by_the_linked_path():
    """Under another name they are missing from a wheel that is built from an sdist."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    patterns = [call.args[0].value for call in calls if ast.unparse(call.func) == "glob.glob"]
    assert patterns and all(pattern.startswith("dtrain/kernels/") and list(ROOT.glob(pattern)) for pattern in patterns)


def test_version_is_that_of_the_package():
    assert PROJECT["project"]["version"] == dtrain.__version__


def test_dependencies_of_the_core_are_installed():
    names = [requirement.split(">")[0] for requirement in PROJECT["project"]["dependencies"]]
    modules = {"pyzmq": "zmq"}
    assert [name for name in names if importlib.util.find_spec(modules.get(name, name)) is None] == []
