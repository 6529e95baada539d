"""NVRTC from its wheel, through ctypes: compiles CUDA source for any architecture on a machine without a GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path


class CompileError(RuntimeError):
    """NVRTC refused the source; the message is its log."""


def compile_cubin(source: str, architecture: str, name: str = "kernels.cu") -> bytes:
    """Machine code of CUDA source text for an architecture such as ``sm_90``. Raises CompileError with NVRTC's log."""
    lib = _library()
    program = ctypes.c_void_p()
    _check(lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    options = [f"--gpu-architecture={architecture}", "--std=c++17", f"-I{_wheel('cuda_runtime') / 'include'}"]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    try:
        if lib.nvrtcCompileProgram(program, len(options), array):
            raise CompileError(f"{name} for {architecture}:\n{_text(lib, program, 'ProgramLog').decode()}")
        return _text(lib, program, "CUBIN")
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def version() -> tuple[int, int]:
    """NVRTC's version, such as (12, 9)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def _text(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(lib, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status:
        _library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileError(_library().nvrtcGetErrorString(status).decode())


@functools.lru_cache(maxsize=None)
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(next((_wheel("cuda_nvrtc") / "lib").glob("libnvrtc.so.*"))))


def _wheel(part: str) -> Path:
    """The folder of one of NVIDIA's wheels; both come with `pip install dtrain[test]`."""
    spec = importlib.util.find_spec(f"nvidia.{part}")
    assert spec is not None, f"nvidia.{part} is not installed: pip install 'dtrain[test]'"
    return Path(next(iter(spec.submodule_search_locations or ())))
