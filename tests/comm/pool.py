"""Ranks that live through many tests. A test sends them a function, and each runs it with the group they share.

Every run has a deadline: when it passes, the stacks of all ranks are printed, the ranks are ended, and the one test fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MPI_ENV = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,sm,tcp", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
_LAUNCHER_WORDS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "OMPI_COMM", "PMI", "PMIX", "SLURM_", "TORCHELASTIC", "DTRAIN_")


def clean_env() -> dict[str, str]:
    """This environment without any launcher's variables, with what Open MPI needs here and the library in reach."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHER_WORDS)}
    path = os.pathsep.join(p for p in (str(ROOT), env.get("PYTHONPATH")) if p)
    return {**env, **MPI_ENV, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def mpirun(size: int) -> list[str]:
    """The mpirun of this Python."""
    return [str(Path(sys.executable).parent / "mpirun"), "-n", str(size), "--bind-to", "none"]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pool:
    """``size`` processes of ``backend``: local, mpi, or mpi-messages."""

    def __init__(self, backend: str, size: int, **options: Any) -> None:
        self.backend, self.size = backend, size
        self.folder = Path(tempfile.mkdtemp(prefix="dtrain-pool-"))
        address = str(self.folder / "socket")
        with Listener(address, "AF_UNIX", authkey=b"pool") as listener:
            worker = [sys.executable, "-m", "tests.comm.worker", backend, address, str(self.folder), repr(options)]
            self.children = self._start(worker)
            self.ranks = self._welcome(listener)

    def _start(self, worker: list[str]) -> list[subprocess.Popen[bytes]]:
        env = clean_env()
        if self.backend != "local":
            return [subprocess.Popen([*mpirun(self.size), *worker], env=env, cwd=ROOT)]
        env |= {"WORLD_SIZE": str(self.size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [subprocess.Popen(worker, env={**env, "RANK": str(r)}, cwd=ROOT) for r in range(self.size)]

    def _welcome(self, listener: Listener) -> list[tuple[Connection, int]]:
        listener._listener._socket.settimeout(30)
        found = {}
        for _ in range(self.size):
            connection = listener.accept()
            rank, pid = connection.recv()
            found[rank] = (connection, pid)
        return [found[r] for r in range(self.size)]

    @property
    def alive(self) -> bool:
        return bool(self.ranks)

    def run(self, fn: Callable[..., Any], *args: Any, timeout: float = 20.0) -> list[Any]:
        """The results of ``fn(group, *args)`` on all ranks; raises what the first failing rank raised."""
        connections = [connection for connection, _ in self.ranks]
        for connection in connections:
            connection.send((fn, args))
        deadline, results = time.monotonic() + timeout, {}
        while len(results) < self.size:
            ready = wait([c for i, c in enumerate(connections) if i not in results], max(deadline - time.monotonic(), 0))
            if not ready:
                self._too_late(fn.__name__, [r for r in range(self.size) if r not in results], timeout)
            for connection in ready:
                results[connections.index(connection)] = self._receive(connection)
        failed = sorted(((r, error, text) for r, (_, error, text) in results.items() if error), key=lambda f: (f[1] == "PeerLost", f[0]))
        if failed:
            self.stop()
            raise AssertionError("\n".join(f"rank {r} of {self.size}:\n{text}" for r, _, text in failed))
        return [results[r][0] for r in range(self.size)]

    def _receive(self, connection: Connection) -> tuple[Any, str, str]:
        try:
            return connection.recv()
        except EOFError:
            return None, "Died", "the process ended"

    def _too_late(self, name: str, late: list[int], timeout: float) -> None:
        for _, pid in self.ranks:
            os.kill(pid, signal.SIGUSR1)
        time.sleep(0.5)
        stacks = "\n".join(f"rank {r}:\n{(self.folder / f'stderr.{r}').read_text()[-6000:]}" for r in range(self.size))
        self.stop()
        raise AssertionError(f"{name}: ranks {late} of {self.size} ({self.backend}) were not done after {timeout:g} s\n{stacks}")

    def leave(self) -> None:
        """Let all ranks end."""
        for connection, _ in self.ranks:
            connection.close()

    def stop(self) -> None:
        """End all ranks."""
        self.leave()
        for child in self.children:
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.ranks = []
        shutil.rmtree(self.folder, ignore_errors=True)


_pools: dict[tuple[Any, ...], Pool] = {}


def pool(backend: str, size: int, **options: Any) -> Pool:
    """The pool of this kind, started when first asked for and again after a failure."""
    key = (backend, size, *sorted(options.items()))
    if key not in _pools or not _pools[key].alive:
        _pools[key] = Pool(backend, size, **options)
    return _pools[key]


def stop_all() -> None:
    """End all pools."""
    for one in _pools.values():
        one.leave()
    for one in _pools.values():
        if one.alive:
            one.stop()
    _pools.clear()
