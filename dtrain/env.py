"""Who am I among the ranks? Answered from environment variables alone, so that one script runs under every launcher.

Every launcher tells a process its place in its own words: torchrun and ``dtrain run`` with ``RANK``, Open MPI with
``OMPI_COMM_WORLD_RANK``, MPICH and Intel MPI with ``PMI_RANK``, Slurm with ``SLURM_PROCID``. ``resolve`` reads them in that
order and falls back to a single process. It is a pure function of the mapping it is given: no MPI, no sockets, no files.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from dtrain.errors import ConfigError

DEFAULT_PORT = 29500  # torchrun's
# Step ids that Slurm gives to shells, not to tasks: interactive step, batch script, extern step, pending step.
_SLURM_SHELL_STEPS = {"4294967290", "4294967291", "4294967292", "4294967293", "batch", "interactive", "extern"}


@dataclass(frozen=True)
class World:
    """One process's place in the job. ``None`` stands for what the launcher does not tell."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node_rank: int | None = 0
    num_nodes: int | None = 1
    master_addr: str | None = None
    master_port: int | None = None
    source: str = "single process"

    def __post_init__(self) -> None:
        _check_range(self.source, "rank", self.rank, self.size)
        _check_range(self.source, "local rank", self.local_rank, self.local_size)
        if self.local_size > self.size:
            raise ConfigError(f"{self.source}: {self.local_size} ranks on this host, but only {self.size} in the whole job")

    def variables(self) -> dict[str, str]:
        """torchrun's names for this place, for a script that reads the environment."""
        names = {
            "RANK": self.rank, "WORLD_SIZE": self.size, "LOCAL_RANK": self.local_rank, "LOCAL_WORLD_SIZE": self.local_size,
            "NODE_RANK": self.node_rank, "GROUP_RANK": self.node_rank, "GROUP_WORLD_SIZE": self.num_nodes,
            "ROLE_RANK": self.rank, "ROLE_WORLD_SIZE": self.size,
            "MASTER_ADDR": self.master_addr, "MASTER_PORT": self.master_port,
        }  # fmt: skip
        return {name: str(value) for name, value in names.items() if value is not None}


def resolve(environ: Mapping[str, str] | None = None) -> World:
    """This process's World, from ``environ`` (default: os.environ).

    Raises ConfigError where the variables of the launcher that speaks first are incomplete, garbled or contradict each other.
    """
    environ = os.environ if environ is None else environ
    for reader in (_from_torchrun, _from_open_mpi, _from_pmi, _from_slurm):
        world = reader(environ)
        if world is not None:
            return world
    return World()


def mpi_size(environ: Mapping[str, str] | None = None) -> int | None:
    """How many ranks mpirun (or ``srun --mpi``) says it started, or None where no MPI launcher is above this process."""
    environ = os.environ if environ is None else environ
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in environ:
            return _integer(environ, name, low=1)
    return None


# ------------------------------------------------------------------------------------------------ one reader a launcher


def _from_torchrun(environ: Mapping[str, str]) -> World | None:
    if "RANK" not in environ and "WORLD_SIZE" not in environ:
        return None
    _both(environ, "RANK", "WORLD_SIZE")
    rank, size = _integer(environ, "RANK"), _integer(environ, "WORLD_SIZE", low=1)
    # Started by hand with the two variables only: all ranks are taken to be on one host.
    local_size = _integer(environ, "LOCAL_WORLD_SIZE", low=1, default=size)
    local_rank = _integer(environ, "LOCAL_RANK", default=rank % local_size)
    node_rank, num_nodes = _nodes(rank, size, local_size)
    for name in ("GROUP_RANK", "NODE_RANK"):
        node_rank = _integer(environ, name, default=node_rank)
    num_nodes = _integer(environ, "GROUP_WORLD_SIZE", low=1, default=num_nodes)
    address, port = _master(environ, local_size == size, ("SLURM_JOB_NODELIST",), None)
    return World(rank, size, local_rank, local_size, node_rank, num_nodes, address, port, "RANK")


def _from_open_mpi(environ: Mapping[str, str]) -> World | None:
    if "OMPI_COMM_WORLD_RANK" not in environ and "OMPI_COMM_WORLD_SIZE" not in environ:
        return None
    _both(environ, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    rank, size = _integer(environ, "OMPI_COMM_WORLD_RANK"), _integer(environ, "OMPI_COMM_WORLD_SIZE", low=1)
    local_rank = _integer(environ, "OMPI_COMM_WORLD_LOCAL_RANK", default=rank)
    local_size = _integer(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", low=1, default=size)
    return _under_mpi(environ, rank, size, local_rank, local_size, environ.get("PMIX_NAMESPACE"), "OMPI")


def _from_pmi(environ: Mapping[str, str]) -> World | None:
    if "PMI_RANK" not in environ and "PMI_SIZE" not in environ:
        return None
    _both(environ, "PMI_RANK", "PMI_SIZE")
    rank, size = _integer(environ, "PMI_RANK"), _integer(environ, "PMI_SIZE", low=1)
    in_step = _in_slurm_step(environ) and "SLURM_LOCALID" in environ
    local_rank = _integer(environ, "SLURM_LOCALID") if in_step else rank
    local_size = _slurm_local_size(environ, size) if in_step else size
    local_rank = _integer(environ, "MPI_LOCALRANKID", default=local_rank)
    local_size = _integer(environ, "MPI_LOCALNRANKS", low=1, default=local_size)
    job = environ.get("PMI_JOBID") or environ.get("SLURM_JOB_ID")
    return _under_mpi(environ, rank, size, local_rank, local_size, job, "PMI")


def _under_mpi(environ, rank: int, size: int, local_rank: int, local_size: int, job: str | None, source: str) -> World:
    node_rank, num_nodes = _nodes(rank, size, local_size)
    if "DTRAIN_RANKS_PER_NODE" in environ:  # the launcher knows the true layout, even an uneven one
        counts = [int(count) for count in environ["DTRAIN_RANKS_PER_NODE"].split(",")]
        node_rank, num_nodes = node_of(rank, counts), len(counts)
    # Not the step's nodes: mpirun starts its daemons by srun on the other nodes only, so each rank sees another list.
    address, port = _master(environ, local_size == size, ("SLURM_JOB_NODELIST", "SLURM_NODELIST"), job)
    return World(rank, size, local_rank, local_size, node_rank, num_nodes, address, port, source)


def _from_slurm(environ: Mapping[str, str]) -> World | None:
    """Slurm speaks last, and only inside a step of several tasks: a shell under ``salloc`` stays a single process."""
    if not _in_slurm_step(environ):
        return None
    name = next((n for n in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS") if n in environ), None)
    if name is None or _integer(environ, name, low=1) == 1:
        return None
    rank, size = _integer(environ, "SLURM_PROCID"), _integer(environ, name, low=1)
    local_rank = _integer(environ, "SLURM_LOCALID", default=rank)
    local_size = _slurm_local_size(environ, size)
    num_nodes = next((_integer(environ, n, low=1) for n in ("SLURM_STEP_NUM_NODES", "SLURM_NNODES") if n in environ), None)
    node_rank = _integer(environ, "SLURM_NODEID", default=None)
    job = f"{environ.get('SLURM_JOB_ID', '')}.{environ.get('SLURM_STEP_ID', '')}"
    address, port = _master(environ, num_nodes == 1, ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"), job)
    return World(rank, size, local_rank, local_size, node_rank, num_nodes, address, port, "SLURM")


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID"))
    interactive = "SLURM_PTY_PORT" in environ or step in _SLURM_SHELL_STEPS
    return step is not None and "SLURM_PROCID" in environ and not interactive


def _slurm_local_size(environ: Mapping[str, str], size: int) -> int:
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        if name in environ:
            counts = slurm_tasks_per_node(environ[name])
            node = _integer(environ, "SLURM_NODEID", default=0)
            if node >= len(counts):
                raise ConfigError(f"SLURM: SLURM_NODEID is {node}, but {name}={environ[name]!r} lists {len(counts)} nodes")
            return counts[node]
    return size


# ---------------------------------------------------------------------------------------------------- where ranks meet


def _master(environ: Mapping[str, str], one_host: bool, node_lists: tuple[str, ...], job: str | None) -> tuple[str | None, int]:
    """Address and port where ranks meet: as given, else this host where it is the only one, else the first Slurm node.

    All ranks must come to the same answer, so the port is derived from ``job``, a name that they share, else torchrun's.
    """
    address = environ.get("MASTER_ADDR") or None
    nodes = next((environ[name] for name in node_lists if environ.get(name)), None)
    if address is None and one_host:
        address = "127.0.0.1"
    elif address is None and nodes:
        address = slurm_hosts(nodes)[0]
    if not environ.get("MASTER_PORT"):
        return address, port_for(job) if job else DEFAULT_PORT
    port = _integer(environ, "MASTER_PORT", low=1)
    if port > 65535:
        raise ConfigError(f"MASTER_PORT must be at most 65535, got {port}")
    return address, port


def port_for(job: str) -> int:
    """A port in 15000..29999, below the range from which Linux takes outgoing connections, derived from a job's name."""
    return 15000 + zlib.crc32(job.encode()) % 15000


def _nodes(rank: int, size: int, local_size: int) -> tuple[int | None, int | None]:
    """(node rank, number of nodes) if the ranks fill equal nodes in order, which every launcher does by default."""
    return (rank // local_size, size // local_size) if size % local_size == 0 else (None, None)


def node_of(rank: int, ranks_per_node: list[int]) -> int:
    """Index of the node that holds ``rank`` where node i holds ``ranks_per_node[i]`` consecutive ranks."""
    for node, count in enumerate(ranks_per_node):
        if rank < count:
            return node
        rank -= count
    raise ConfigError(f"a rank lies beyond the {sum(ranks_per_node)} ranks of the layout {ranks_per_node}")


# -------------------------------------------------------------------------------------------------------- Slurm's forms


def slurm_tasks_per_node(text: str) -> list[int]:
    """Expand ``2(x2),1`` to ``[2, 2, 1]``."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\(x(\d{1,6})\))?\s*", part)
        if match is None:
            raise ConfigError(f"cannot read {text!r} as Slurm's tasks per node; expected a form such as '2(x2),1'")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def slurm_hosts(text: str) -> list[str]:
    """Expand ``n[01-03,7],gpu5`` to ``["n01", "n02", "n03", "n7", "gpu5"]``."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not parts or ",".join(parts) != text:
        raise ConfigError(f"cannot read {text!r} as a Slurm node list; expected a form such as 'n[01-03,7],gpu5'")
    return [host for part in parts for host in _expand_host(part, text)]


def _expand_host(part: str, text: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, after = rest.partition("]")
    tails = _expand_host(after, text) if after else [""]
    return [before + number + tail for piece in inside.split(",") for number in _numbers(piece, text) for tail in tails]


def _numbers(piece: str, text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if high < low or high - low >= 100_000:
        raise ConfigError(f"cannot read the range {piece!r} in the Slurm node list {text!r}")
    return [str(number).zfill(len(match[1])) for number in range(low, high + 1)]


# --------------------------------------------------------------------------------------------------------------- checks


def _integer(environ: Mapping[str, str], name: str, low: int = 0, default: int | None = ...) -> int:  # type: ignore[assignment]
    """``environ[name]`` as an integer of at least ``low``; ``default`` where it is not set, if one is given."""
    if name not in environ and default is not ...:
        return default
    if name not in environ:
        raise ConfigError(f"the variable {name} is not set, though its companions are; unset them or set it")
    try:
        value = int(environ[name])
    except ValueError:
        raise ConfigError(f"the variable {name} must be an integer, got {environ[name]!r}") from None
    if value < low:
        raise ConfigError(f"the variable {name} must be at least {low}, got {value}")
    return value


def _both(environ: Mapping[str, str], one: str, other: str) -> None:
    for given, missing in ((one, other), (other, one)):
        if given in environ and missing not in environ:
            hint = "set both, or unset both to run a single process"
            raise ConfigError(f"{given}={environ[given]!r} is set but {missing} is not; {hint}")


def _check_range(source: str, what: str, value: int, size: int) -> None:
    if not 0 <= value < size:
        raise ConfigError(f"{source}: the {what} is {value}, but there are {size}: it must be in 0..{size - 1}")


# ---------------------------------------------------------------------------------------------------------------- cores


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(affinity: int | None = None, cpu_max: str | None = None) -> int:
    """Cores this process may use: its affinity, cut by the container's quota (the text of cgroup v2's ``cpu.max``)."""
    cores = _affinity() if affinity is None else affinity
    if cpu_max is None:
        try:
            with open("/sys/fs/cgroup/cpu.max") as file:
                cpu_max = file.read()
        except OSError:
            cpu_max = ""
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, max(1, -(-int(quota) // int(period))))
    return cores
