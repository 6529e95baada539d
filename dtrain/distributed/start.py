"""Which backend a job gets, and how its world is made. The choice is a pure function of the environment and arguments."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtrain import env
from dtrain.comm import threads
from dtrain.comm.group import Group
from dtrain.errors import ArgumentError, ConfigError, LaunchError, UnsupportedError

if TYPE_CHECKING:
    from dtrain.comm.store import Store

BACKENDS = ("mpi", "gloo", "nccl", "local", "single", "threads")
_CPU = {"mpi": "mpi", "gloo": None, "local": "local", "single": "single", "threads": "threads"}


@dataclass(frozen=True)
class Plan:
    """How to make the world: ``kind`` is single, local or mpi; ``address`` and ``file`` say where local ranks meet."""

    kind: str
    name: str
    rank: int = 0
    size: int = 1
    address: tuple[str, int] | None = None
    file: str | None = None
    expected: int | None = None         # ranks that MPI must see
    launcher: str = "the caller"        # who says so


def make_world(environ: Mapping[str, str], backend: str | None, init_method: str | None, timeout: float,
               world_size: int, rank: int, store: Store | None) -> Group:
    """The world's group for this rank. Inside ``comm.run_threads`` it is that of the thread."""
    here = threads.current()
    name = _single_name(backend)
    if here is not None or name == "threads":
        if here is None:
            raise ArgumentError("backend 'threads' works inside dtrain.comm.run_threads(fn, world_size), which makes the ranks")
        return here
    plan = choose(environ, name, init_method, world_size, rank, store is not None, has_mpi4py())
    if plan.kind == "mpi":
        from dtrain.comm.mpi import mpi_group

        return mpi_group(timeout, expected=plan.expected, launcher=plan.launcher, backend=plan.name)
    if plan.kind == "single":
        from dtrain.comm.single import single_group

        return single_group(plan.name, timeout=timeout)
    from dtrain.comm.local import local_group

    return local_group(plan.rank, plan.size, address=plan.address, file=plan.file, store=store, timeout=timeout, backend=plan.name)


def has_mpi4py() -> bool:
    """Whether mpi4py could be imported."""
    return importlib.util.find_spec("mpi4py") is not None


def _single_name(backend: str | None) -> str | None:
    """One lower-case name out of ``backend``, which may also be of the form ``cpu:gloo,cuda:nccl``."""
    if backend is None:
        return None
    names = {part.partition(":")[2] or part for part in str(backend).lower().split(",")}
    if "nccl" in names:
        raise UnsupportedError(
            "backend 'nccl', GPU to GPU over NCCL, is not built yet. Use backend='mpi' or 'gloo': tensors on a GPU are then staged "
            "through host memory (gradients stay on the GPU, messages do not)"
        )
    if len(names) > 1 or not names <= set(_CPU):
        raise ArgumentError(f"unknown backend {backend!r}; known are {', '.join(_CPU)} (and nccl, later)")
    return names.pop()


def choose(environ: Mapping[str, str], name: str | None, init_method: str | None, world_size: int, rank: int,
           has_store: bool, mpi4py: bool) -> Plan:
    """The plan for these settings. Raises LaunchError where the ranks could not reach each other."""
    wanted = _CPU[name] if name is not None else None
    if wanted == "single":
        return Plan("single", name or "single")
    if has_store or (init_method or "env://") != "env://":
        return _explicit(name or "local", init_method, world_size, rank, environ)
    world = _world(environ, world_size, rank)
    launched = _mpi_launched(environ, world)
    if wanted == "mpi" or (wanted is None and launched and mpi4py):
        expected = None if world.source == "single process" else world.size
        return Plan("mpi", name or "mpi", world.rank, world.size, expected=expected, launcher=world.source)
    if world.size == 1:
        return Plan("single", name or "single")
    _one_node(world, launched, mpi4py)
    return Plan("local", name or "local", world.rank, world.size, (world.master_addr or "127.0.0.1", world.master_port or env.DEFAULT_PORT))


def _world(environ: Mapping[str, str], world_size: int, rank: int) -> env.World:
    """Who we are by the environment, with explicit arguments in place of RANK and WORLD_SIZE."""
    if world_size == rank == -1:
        return env.resolve(environ)
    overrides = {"WORLD_SIZE": world_size, "RANK": rank}
    given = {key: str(value) for key, value in overrides.items() if value != -1}
    return env.resolve({**environ, **given})


def _mpi_launched(environ: Mapping[str, str], world: env.World) -> bool:
    """Whether MPI would find the other ranks: mpirun, or srun with one of its MPI plugins, is above this process."""
    if environ.get("DTRAIN_LAUNCH") == "local":
        return False
    launched = env.mpi_size(environ)
    if launched is None:
        return world.source == "SLURM" and ("PMIX_RANK" in environ or world.num_nodes != 1)
    return launched > 1 or world.size > 1


def _one_node(world: env.World, launched: bool, mpi4py: bool) -> None:
    if world.num_nodes == 1 or (world.num_nodes is None and world.local_size == world.size):
        return
    missing = "mpi4py is not installed" if launched and not mpi4py else "it was not started by MPI"
    raise LaunchError(
        f"{world.source} says that this is rank {world.rank} of {world.size} on several hosts ({world.local_size} here), but {missing}, and "
        "without MPI only ranks of one host can talk. Start it with mpirun, `dtrain run` or `srun --mpi=...`, with mpi4py "
        "and an MPI library installed (pip install 'dtrain[mpi]')"
    )


def _explicit(name: str, init_method: str | None, world_size: int, rank: int, environ: Mapping[str, str]) -> Plan:
    """A world whose ranks are told where they meet."""
    if world_size == -1 and rank == -1 and "RANK" in environ:
        world = env.resolve(environ)
        world_size, rank = world.size, world.rank
    if world_size < 1 or not 0 <= rank < world_size:
        raise ArgumentError(f"init_method and store need rank and world_size, with 0 <= rank < world_size; got {rank} and {world_size}")
    if name == "mpi":
        return Plan("mpi", name, rank, world_size, expected=world_size)
    if init_method is None:
        return Plan("local", name, rank, world_size)
    scheme, _, where = init_method.partition("://")
    host, _, port = where.rpartition(":")
    if scheme == "file" and where.startswith("/") and len(where) > 1:
        return Plan("local", name, rank, world_size, file=where)
    if scheme == "tcp" and host and port.isdecimal() and 0 < int(port) < 65536:
        return Plan("local", name, rank, world_size, address=(host.strip("[]"), int(port)))
    raise ConfigError(f"cannot use init_method={init_method!r}; expected env://, tcp://host:port or file:///path")
