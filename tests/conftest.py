"""Devices for the tests. Where there is no GPU, a strict stand-in for CuPy with two devices takes CuPy's place.

    pytest                   # a real GPU if there is one, else the stand-in
    pytest --real-gpu        # fails where no real GPU is usable
    pytest --stand-in        # the stand-in, also on a machine with a GPU
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Iterator

import pytest

_GPU = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-gpu", action="store_true", help="demand a real CUDA device")
    parser.addoption("--stand-in", action="store_true", help="use the stand-in for CuPy even if there is a real CUDA device")


def pytest_configure(config: pytest.Config) -> None:
    wanted, refused = config.getoption("--real-gpu"), config.getoption("--stand-in")
    real = False if refused else _has_driver() and _is_usable()
    if wanted and not real:
        from dtrain.backend import cuda

        raise pytest.UsageError(f"--real-gpu: {cuda.why_not() or 'refused by --stand-in'}")
    config.stash[_GPU] = real
    if not real:
        from tests import standin

        standin.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.stash[_GPU]:
        absent = pytest.mark.skip(reason="no CUDA device in this machine")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(absent)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _is_usable() -> bool:
    """Asked of a child process: a CUDA runtime started here would be lost to the processes tests fork."""
    import subprocess
    import sys

    code = "from dtrain.backend import cuda; raise SystemExit(not cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__))).returncode == 0


@pytest.fixture(params=["cpu", "cuda:0"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test that takes it runs on the CPU and on ``cuda:0`` (real, or the stand-in)."""
    yield request.param
    if request.param != "cpu":
        from dtrain.backend import cuda

        cuda.set_device(0)


@pytest.fixture
def second_gpu() -> str:
    """``cuda:1``; a test that takes it is left out on a machine with a single GPU."""
    from dtrain.backend import cuda

    if cuda.device_count() < 2:
        pytest.skip("only one CUDA device in this machine")
    return "cuda:1"


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine without CUDA."""
    from dtrain.backend import cuda

    monkeypatch.setattr(cuda, "_cupy", None)
    monkeypatch.setattr(cuda, "_look", lambda: (None, 0, "this machine has no NVIDIA driver, or use device='cpu'"))
