"""The sources of the kernels: they compile for every architecture we name, and what no CPU can execute is counted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dtrain.backend import kernels
from tests.kernels import gelu_coefficients, nvrtc
from tests.kernels.shim_build import COMPILER, FLAGS, SHIM, kernel_names

ROOT = Path(kernels.ROOT)
CUDA = sorted(path.stem for path in (ROOT / "cuda").glob("*.cu"))
PROBES = Path(__file__).with_name("probes.cu")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("source", [*CUDA, "probes"])
def test_compiles_with_nvrtc(source, architecture):
    text = kernels.source(source) if source in CUDA else kernels.expand(str(PROBES))
    cubin = nvrtc.compile_cubin(text, architecture)
    assert cubin[:4] == b"\x7fELF"
    names = kernel_names(preprocessed(text))
    assert names and all(b"\0.text." + name.encode() + b"\0" in cubin for name in names)


def test_nvrtc_errors_name_file_and_line():
    broken = kernels.source("gelu").replace("out[i] = E::store(gelu<", "out[i] = E::stor(gelu<", 1)
    line = next(i for i, text in enumerate((ROOT / "cuda" / "gelu.cu").read_text().splitlines(), 1) if "E::store(gelu<" in text)
    with pytest.raises(nvrtc.CompileError, match=rf"cuda/gelu\.cu\({line}\): error"):
        nvrtc.compile_cubin(broken, "sm_90")


def preprocessed(text):
    return subprocess.run([COMPILER, *FLAGS, f"-I{SHIM}", "-include", "cuda_shim.h", "-E", "-x", "c++", "-"],
                          input=text, capture_output=True, text=True, check=True).stdout  # fmt: skip


# Lines between `#if defined(__CUDACC__)` and its #endif or #else. Each is a line that only a real GPU can prove.
CUDA_ONLY = {"cuda/primitives.cuh": ["#define DT_DYNAMIC_SHARED(type, name) extern __shared__ type name[]"]}


def test_lines_that_only_the_cuda_compiler_sees():
    found = {str(path.relative_to(ROOT)): lines for path in sources() if (lines := cuda_only_lines(path.read_text()))}
    assert found == CUDA_ONLY
    assert sum(map(len, found.values())) == 1


def test_ptx_and_compiler_switches_are_in_the_header_of_primitives_alone():
    for path in sources():
        if path.name != "primitives.cuh":
            assert not re.search(r"\basm\b|\bwmma\b|__CUDA|__NVCC__", path.read_text()), path


def sources():
    return [path for folder in ("cuda", "common") for path in sorted((ROOT / folder).iterdir())]


def cuda_only_lines(text):
    lines, depth = [], 0
    for line in text.splitlines():
        if re.match(r"\s*#\s*if", line):
            depth = depth + 1 if depth or "__CUDACC__" in line else 0
        elif depth and re.match(r"\s*#\s*(endif|else)", line):
            depth -= 1
        elif depth and line.strip() and not line.strip().startswith("//"):
            lines.append(line.strip())
    return lines


def test_expanded_source_holds_every_header_once():
    text = kernels.source("gelu")
    assert text.startswith('#line 1 "cuda/gelu.cu"\n')
    assert text.count("struct Gelu<float>") == 1 and text.count("T block_sum(") == 1
    assert '#include "' not in text and "#pragma once" not in text


@pytest.mark.parametrize("precision", gelu_coefficients.PRECISIONS)
def test_constants_are_those_that_the_derivation_gives(precision):
    header = (ROOT / "common" / "gelu.h").read_text()
    body = header[header.index(f"struct Gelu<{precision}>") :]
    literals = {float.fromhex(text) for text in re.findall(r"-?0x[0-9a-f.]+p[+-]?\d+", body[: body.index("\n};")])}
    for name, values in gelu_coefficients.derive(precision).items():
        assert set(values) <= literals, name
