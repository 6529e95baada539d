"""How the processes of one job find rank 0: at an address, or at a file."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Mapping

from typing import TYPE_CHECKING

from dtrain.errors import ConfigError, DistributedError

if TYPE_CHECKING:
    from dtrain.comm.store import Store


def node_id() -> str:
    """What processes share that can share memory: host, boot, PID namespace and user."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = "", ""
    return f"{os.uname().nodename}|{boot}|{namespace}|{os.getuid()}"


def run_id(environ: Mapping[str, str] | None = None) -> str:
    """The name of this run, by which its ranks know each other."""
    environ = os.environ if environ is None else environ
    return environ.get("DTRAIN_RUN_ID") or environ.get("TORCHELASTIC_RUN_ID") or ""


def meet_at_address(host: str, port: int, rank: int, timeout: float) -> Store:
    """The store at ``host:port``, served by rank 0.

    Under torchrun that port already belongs to torchrun's own store: then ranks meet at a file named after it.
    """
    from dtrain.comm.store import TCPStore

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return meet_at_file(_agent_file(host, port), rank, timeout)
    return TCPStore(host, port, rank == 0, timeout, run_id())


def meet_at_file(path: str, rank: int, timeout: float) -> Store:
    """The store whose address rank 0 writes to ``path``, with a token, readable by this user only.

    A file left from an earlier run does no harm: nobody answers there with its token.
    """
    from dtrain.comm.store import TCPStore

    if rank == 0:
        token = os.urandom(16).hex()
        store = TCPStore("127.0.0.1", 0, True, timeout, token, at_file=path)
        _write(path, json.dumps({"host": store.host, "port": store.port, "token": token, "node": node_id()}))
        return store
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(DistributedError, FileNotFoundError, json.JSONDecodeError):
            with open(path) as file:
                found = json.load(file)
            same_node(found["node"], path)
            return TCPStore(found["host"], found["port"], False, min(1.0, timeout), found["token"])
        if time.monotonic() > deadline:
            raise DistributedError(f"rank {rank} did not find rank 0 through the file {path} within {timeout:g} s")
        time.sleep(0.02)


def _write(path: str, text: str) -> None:
    before = f"{path}.{os.getpid()}"
    try:
        fd = os.open(before, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(before, path)
    except OSError as error:
        raise ConfigError(f"rank 0 cannot write the meeting file {path}: {error.strerror}") from None


def same_node(node: str, where: str) -> None:
    """Raise ConfigError unless rank 0, whose ``node_id`` was found at ``where``, can share memory with this process."""
    if node != node_id():
        raise ConfigError(
            f"rank 0 (at {where}) runs on {node.split('|')[0]!r} and this rank on {os.uname().nodename!r}, or in another container or "
            "under another user: the local backend connects processes of one node only. Start the job with mpirun, "
            "`dtrain run` or srun, with mpi4py and an MPI installed (pip install 'dtrain[mpi]'), to span nodes"
        )


def _agent_file(host: str, port: int) -> str:
    folder = f"/tmp/dtrain-{os.getuid()}"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise ConfigError(f"{folder} must be a folder of this user, closed to others; remove it")
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    import hashlib

    return os.path.join(folder, hashlib.sha256(f"{host}:{port}:{run_id()}:{attempt}".encode()).hexdigest()[:32])
