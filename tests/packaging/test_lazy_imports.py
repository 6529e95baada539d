"""What an import loads: `import dtrain` next to nothing, the launcher no NumPy, a tensor no MPI and no CUDA."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"cupy", "mpi4py", "onnx", "onnxruntime", "zmq", "torch", "matplotlib", "scipy", "sklearn", "safetensors", "msgspec", "psutil", "tqdm"}


def loaded_by(code: str) -> set[str]:
    """The top-level packages in sys.modules after ``code`` ran in a fresh interpreter."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import dtrain",
        "import dtrain; dtrain.__version__",
        "import dtrain.errors, dtrain.env, dtrain.logs, dtrain.files",
        "import dtrain.cli",
        "import dtrain.launcher",
        "import dtrain.launcher.run",
    ],
)
def test_light(code):
    assert not loaded_by(code) & (HEAVY | {"numpy", "ml_dtypes"})


def test_a_training_step_needs_numpy_alone():
    code = "import dtrain; x = dtrain.ones(3, requires_grad=True); (x * 2).sum().backward(); import dtrain.nn, dtrain.optim, dtrain.data"
    loaded = loaded_by(code)
    assert not loaded & HEAVY and "numpy" in loaded


def test_the_probe_sees_what_is_loaded():
    assert "numpy" in loaded_by("import numpy") and "safetensors" in loaded_by("import safetensors")
