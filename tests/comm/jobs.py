"""Small jobs for tests of failures: N processes of a script, with their output and how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.comm.pool import ROOT, clean_env, free_port, mpirun

HEAD = """
import faulthandler, os, signal, sys, time
faulthandler.register(signal.SIGUSR1)
import numpy as np
from dtrain.comm import failure
from dtrain.errors import *
if os.environ["BACKEND"] == "local":
    from dtrain.comm.local import local_group
    group = local_group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), timeout=20,
                        address=("127.0.0.1", int(os.environ["MASTER_PORT"])))
    failure.install(group.rank)
else:
    from dtrain.comm.mpi import mpi_group
    group = mpi_group(timeout=20, shared_memory=os.environ["BACKEND"] == "mpi")
rank, a = group.rank, np.ones(5)
"""


@dataclass
class Ended:
    """How one process ended: exit code, output, and seconds from the start of the job."""

    code: int
    out: str
    err: str
    seconds: float


def run_local(tmp_path: Path, body: str, size: int = 3, timeout: float = 20.0) -> list[Ended]:
    """Run ``body`` after ``HEAD`` on ``size`` processes of the local backend."""
    script = tmp_path / "job.py"
    script.write_text(HEAD + body)
    env = clean_env() | {"BACKEND": "local", "WORLD_SIZE": str(size), "MASTER_PORT": str(free_port())}
    began = time.monotonic()
    children = [_start([sys.executable, str(script)], env | {"RANK": str(r)}) for r in range(size)]
    return [_finish(child, began, timeout) for child in children]


def run_mpi(tmp_path: Path, body: str, size: int = 3, timeout: float = 20.0, backend: str = "mpi") -> Ended:
    """The same under mpirun; all output together."""
    script = tmp_path / "job.py"
    script.write_text(HEAD + body)
    began = time.monotonic()
    return _finish(_start([*mpirun(size), sys.executable, str(script)], clean_env() | {"BACKEND": backend}), began, timeout)


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def _finish(child: subprocess.Popen[str], began: float, timeout: float) -> Ended:
    try:
        out, err = child.communicate(timeout=max(timeout - (time.monotonic() - began), 0.1))
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGUSR1)      # every rank prints where it is
        time.sleep(0.5)
        _signal(child, signal.SIGKILL)
        out, err = child.communicate()
        raise AssertionError(f"not done after {timeout:g} s\n{out}\n{err}") from None
    return Ended(child.returncode, out, err, time.monotonic() - began)


def _signal(child: Any, number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass
