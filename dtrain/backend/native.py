"""The native CPU kernels of `dtrain._native`: optional, built at install, the NumPy bodies of the operations their reference.

Each function returns None, having done nothing, where the extension is absent or the arrays are not what it computes on
(C-contiguous float32 or float64): the caller then takes its NumPy body. DTRAIN_REQUIRE_NATIVE=1 makes absence an error.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dtrain.backend import threads
from dtrain.errors import ConfigError
from dtrain.logs import warn_once

_REMEDY = "install a C++17 compiler (Debian: apt-get install g++) and install dtrain again"
_UNTRIED = object()
_module: Any = _UNTRIED
_problem = ""
_enabled = True


def available() -> bool:
    """Are the native kernels present?"""
    _find()
    return _module is not None


def why_not() -> str:
    """Why the native kernels are absent, and what to do; empty where they are present."""
    _find()
    return _problem


def required() -> bool:
    """Does DTRAIN_REQUIRE_NATIVE ask for an error where the kernels are absent?"""
    return os.environ.get("DTRAIN_REQUIRE_NATIVE", "0") not in ("", "0")


def instruction_set() -> str:
    """What the kernels run on here: ``avx2``, ``portable``, or ``none`` where they are absent."""
    return _module.instruction_set() if available() else "none"


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray | None:
    """GELU of ``x``, in the exact (``none``) or the ``tanh`` form, as a new array, within 5 units in the last place.

    None where ``x`` is not a C-contiguous float32 or float64 array or the kernels are absent. Raises ConfigError where
    they are absent and DTRAIN_REQUIRE_NATIVE=1.
    """
    module = _usable()
    if module is None:
        return None
    out = np.empty_like(x)
    return out if module.gelu_forward(x, out, approximate == "tanh") else None


def gelu_backward(grad: np.ndarray, x: np.ndarray, approximate: str = "none") -> np.ndarray | None:
    """``grad`` times the derivative of `gelu` at ``x``; both of one shape and dtype, else None as in `gelu`.

    A strided gradient (that of a sum is one number, broadcast) is copied: still cheaper than the NumPy body.
    """
    module = _usable()
    if module is None or grad.shape != x.shape:
        return None
    if not grad.flags.c_contiguous:
        grad = np.ascontiguousarray(grad)
    out = np.empty_like(x)
    return out if module.gelu_backward(grad, x, out, approximate == "tanh") else None


def get_num_threads() -> int:
    """Threads a kernel may use: `threads.set_num_threads` says how many; 1 where the kernels are absent, and in a forked child until it is told."""
    return _module.get_num_threads() if available() else 1


@contextmanager
def disabled() -> Iterator[None]:
    """Inside the block every function returns None: the NumPy bodies, for comparisons."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def _usable() -> Any:
    """The extension, or None with one line said about it; an error where it is required."""
    if _module is _UNTRIED:
        _find()
    if not _enabled:
        return None
    if _module is None:
        if required():
            raise ConfigError(f"DTRAIN_REQUIRE_NATIVE=1, but {_problem}")
        warn_once("native", f"{_problem}; until then dtrain computes in NumPy, more slowly")
    return _module


def _find() -> None:
    """Load the extension, once a process."""
    global _module, _problem
    if _module is not _UNTRIED:
        return
    try:
        module = importlib.import_module("dtrain._native")
    except ModuleNotFoundError:
        module, _problem = None, f"the native CPU kernels were not built; {_REMEDY}"
    except ImportError as error:
        module, _problem = None, f"the native CPU kernels do not load ({error}); {_REMEDY}"
    if module is not None:
        module.set_num_threads(threads.get_num_threads())
        threads.followers.append(module.set_num_threads)
    _module = module
