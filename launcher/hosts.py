"""Which hosts take how many ranks: from --hosts, a host file, a Slurm allocation, or this host alone."""

from __future__ import annotations

from collections.abc import Mapping

from dtrain.env import slurm_hosts, slurm_tasks_per_node
from dtrain.errors import ConfigError
from dtrain.launcher.spec import Host, Site


def parse_hosts(text: str) -> list[tuple[str, int | None]]:
    """``a:4,b`` as ``[("a", 4), ("b", None)]``; node ranges such as ``n[1-3]:2`` are expanded."""
    found: list[tuple[str, int | None]] = []
    for part in _split_outside_brackets(text):
        name, colon, slots = part.strip().partition(":")
        if not name or (colon and not slots.isdigit()) or slots.strip("0") == "" and colon:
            raise ConfigError(f"--hosts: cannot read {part!r}; expected host or host:ranks, such as 'a:4,b:4'")
        found += [(host, int(slots) if colon else None) for host in slurm_hosts(name)]
    return _without_doubles(found, "--hosts")


def parse_hostfile(text: str, path: str) -> list[tuple[str, int | None]]:
    """Lines ``host``, ``host slots=4`` (Open MPI's form) or ``host:4`` (MPICH's); ``#`` opens a comment."""
    found: list[tuple[str, int | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, _, slots = words[0].partition(":")
        for word in words[1:]:
            key, _, value = word.partition("=")
            slots = value if key == "slots" else "?"
        if slots and (not slots.isdigit() or int(slots) == 0):
            raise ConfigError(f"{path}:{number}: cannot read {line.strip()!r}; expected 'host', 'host slots=4' or 'host:4'")
        found.append((name, int(slots) if slots else None))
    if not found:
        raise ConfigError(f"the host file {path} names no host")
    return _without_doubles(found, path)


def slurm_allocation(environ: Mapping[str, str]) -> list[tuple[str, int | None]]:
    """The hosts of the allocation around a batch script or ``salloc`` shell; empty outside one."""
    nodes = environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST")
    if not nodes:
        return []
    if environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        tasks = environ["SLURM_STEP_NUM_TASKS"]
        raise ConfigError(
            f"this is one of {tasks} tasks of a Slurm step, and each would start a whole job; call `dtrain run` without srun, or let"
            " `srun python script.py` start the ranks"
        )
    names = slurm_hosts(nodes)
    if "SLURM_TASKS_PER_NODE" not in environ or "SLURM_NTASKS" not in environ:
        return [(name, None) for name in names]
    counts = slurm_tasks_per_node(environ["SLURM_TASKS_PER_NODE"])
    return [(name, count) for name, count in zip(names, counts, strict=False)]


def place(
    hosts: list[tuple[str, int | None]],
    num_ranks: int | None,
    per_node: int | None,
    num_nodes: int | None,
    site: Site,
) -> tuple[tuple[Host, ...], bool]:
    """How many ranks go where, and whether this host alone takes them all.

    ``num_ranks`` is -n, ``per_node`` --nproc-per-node, ``num_nodes`` --nnodes; each None where it was not given.
    """
    if num_nodes is not None and num_nodes > max(1, len(hosts)):
        where = f"only {len(hosts)} hosts are known" if hosts else "no other host is known"
        raise ConfigError(
            f"--nnodes {num_nodes}, but {where}: one `dtrain run` starts all nodes; name them with --hosts a,b or"
            " --hostfile, or run inside a Slurm allocation"
        )
    hosts = hosts[: num_nodes or None] or [(site.hostname, None)]
    if per_node is not None:
        total = per_node * len(hosts)
        if num_ranks not in (None, total):
            raise ConfigError(f"-n {num_ranks} contradicts --nproc-per-node {per_node} on {len(hosts)} nodes: that is {total} in all")
        placed = [Host(name, per_node) for name, _ in hosts]
    else:
        placed = _fill(hosts, num_ranks)
    return tuple(placed), len(placed) == 1 and site.is_here(placed[0].name)


def _fill(hosts: list[tuple[str, int | None]], num_ranks: int | None) -> list[Host]:
    slots = [count for _, count in hosts if count is not None]
    if len(slots) not in (0, len(hosts)):
        raise ConfigError("some hosts have a number of ranks and some have none; write it for all, such as 'a:4,b:4', or for none")
    if not slots:
        total = num_ranks or len(hosts)
        if total % len(hosts):
            raise ConfigError(f"-n {total} does not divide over {len(hosts)} hosts; say how many ranks each takes, such as 'a:3,b:2'")
        return [Host(name, total // len(hosts)) for name, _ in hosts]
    if len(hosts) == 1:  # more ranks than slots on one host is a wish, not a slip: a laptop runs 4 ranks on 2 cores
        return [Host(hosts[0][0], num_ranks or slots[0])]
    left = sum(slots) if num_ranks is None else num_ranks
    if left > sum(slots):
        raise ConfigError(f"-n {left} ranks, but the hosts take {sum(slots)}: " + ",".join(f"{n}:{c}" for n, c in hosts))
    placed = []
    for (name, _), count in zip(hosts, slots, strict=True):
        placed.append(Host(name, min(left, count)))
        left -= placed[-1].ranks
    return [host for host in placed if host.ranks]


def _without_doubles(found: list[tuple[str, int | None]], where: str) -> list[tuple[str, int | None]]:
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: the host {name!r} is named twice; write {name}:RANKS once")
    return found


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
