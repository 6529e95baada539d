"""Fail unless a wheel holds the native module, the kernel sources and the launcher, and serves every Python from 3.11."""

import sys
import zipfile

NEEDED = [
    "dtrain/_native.abi3.so",
    "dtrain/py.typed",
    "dtrain/launcher/__init__.py",
    "dtrain/kernels/cuda/gelu.cu",
    "dtrain/kernels/cuda/primitives.cuh",
    "dtrain/kernels/common/gelu.h",
    "dtrain/kernels/shim/cuda_shim.h",
    "dtrain/kernels/README.md",
]


def problems(name: str, files: set[str]) -> list[str]:
    found = [f"{path} is missing" for path in NEEDED if path not in files]
    if "-cp311-abi3-" not in name:
        found.append(f"{name} is not tagged cp311-abi3")
    strays = sorted({path.split("/")[0] for path in files if not path.startswith(("dtrain/", "dtrain-"))})
    return found + [f"{stray} does not belong into the wheel" for stray in strays]


if __name__ == "__main__":
    path = sys.argv[1]
    with zipfile.ZipFile(path) as wheel:
        found = problems(path.rsplit("/", 1)[-1], set(wheel.namelist()))
    if found:
        sys.exit("\n".join([f"{path}:", *found]))
    print(f"{path}: complete")
