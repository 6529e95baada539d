"""The example GPT started in every way there is, and its loss curves: what the curve and resume trials share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "examples/gpt/train.py")
TINY = ["--context", "32", "--layers", "2", "--width", "32"]
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "OMPI_COMM", "PMI", "PMIX", "SLURM_", "DTRAIN_")

LAUNCH = {
    "python": [sys.executable],
    "mpirun -n 2": [str(Path(sys.executable).parent / "mpirun"), "-n", "2", "--bind-to", "none", sys.executable],
    "dtrain run -n 2": [sys.executable, "-m", "dtrain", "run", "-n", "2"],
    "dtrain run -n 4": [sys.executable, "-m", "dtrain", "run", "-n", "4"],
    "local backend, 2 processes": [sys.executable, "-m", "dtrain", "run", "--backend", "local", "-n", "2"],
}


def environment() -> dict[str, str]:
    """One thread a rank, no launcher's variables, and what Open MPI needs for more ranks than cores."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS)}
    env.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DTRAIN_NUM_THREADS")})
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe")
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), env.get("PYTHONPATH")) if p)
    return env


def train(way: str, out: Path, *arguments: str, timeout: float = 600) -> None:
    """Run the example; raises with its output if it fails or takes longer than ``timeout`` seconds."""
    command = [*LAUNCH[way], SCRIPT, "--out", str(out), "--no-artifacts", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{way} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def losses(out: Path) -> list[float]:
    """The training losses in ``metrics.jsonl``, by step."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [e["step"] for e in found] == list(range(1, len(found) + 1)), [e["step"] for e in found]
    return [e["loss"] for e in found]
