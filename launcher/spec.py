"""What is to be launched and where: plain values, so that every decision can be tested without starting a process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from dtrain.env import usable_cores


@dataclass(frozen=True)
class Host:
    """A machine and how many ranks it takes."""

    name: str
    ranks: int


@dataclass(frozen=True)
class Site:
    """What the machine of the launcher is like. Tests write one down; ``here()`` reads this one."""

    hostname: str = "localhost"
    cores: int = 1
    gpus: int = 0
    root: bool = False
    fabric: bool = False  # InfiniBand or a like network is present
    executable: str = "python"
    environ: Mapping[str, str] = field(default_factory=dict)

    def is_here(self, name: str) -> bool:
        """Whether ``name`` is a name of this machine, with or without its domain; Slurm may know it by another."""
        mine = {self.hostname, self.environ.get("SLURMD_NODENAME", self.hostname)}
        return name in ("localhost", "127.0.0.1", "::1") or name.partition(".")[0] in {own.partition(".")[0] for own in mine}


@dataclass(frozen=True)
class Streams:
    """Which streams of each local rank an option takes: 0 none, 1 stdout, 2 stderr, 3 both."""

    default: int = 0
    by_local_rank: tuple[tuple[int, int], ...] = ()

    def of(self, local_rank: int) -> int:
        return dict(self.by_local_rank).get(local_rank, self.default)


@dataclass(frozen=True)
class LaunchSpec:
    """One job. ``kind`` is "script", "module" or "program"; ``hosts`` names this host alone when ``local`` is True."""

    target: str
    args: tuple[str, ...] = ()
    kind: str = "script"
    hosts: tuple[Host, ...] = (Host("localhost", 1),)
    local: bool = True
    backend: str = "mpi"
    run_id: str = "job"
    master_addr: str | None = None
    master_port: int | None = None
    threads: int | None = None
    prefix: bool = True
    quiet: bool = False
    log_dir: str | None = None
    tee: Streams = Streams()  # to a file and to the screen
    redirects: Streams = Streams()  # to a file only
    only: frozenset[int] | None = None  # local ranks to show; None shows all
    grace: float = 10.0

    @property
    def size(self) -> int:
        return sum(host.ranks for host in self.hosts)

    @property
    def ranks_per_node(self) -> list[int]:
        return [host.ranks for host in self.hosts]

    def local_ranks(self) -> list[int]:
        """The local rank of every rank, ranks filling the hosts in order."""
        return [local for host in self.hosts for local in range(host.ranks)]

    def to_file(self, local_rank: int) -> int:
        """Streams of ``local_rank`` that go to log files, as bits; a log directory alone takes both."""
        mask = self.tee.of(local_rank) | self.redirects.of(local_rank)
        return 3 if self.log_dir and self.tee == self.redirects == Streams() else mask

    def to_screen(self, local_rank: int) -> int:
        """Streams of ``local_rank`` that are shown, as bits."""
        if self.only is not None and local_rank not in self.only:
            return 0
        return 3 & ~self.redirects.of(local_rank) | self.tee.of(local_rank)


def here(environ: Mapping[str, str], executable: str) -> Site:
    """This machine as a Site."""
    fabric = any(os.path.isdir(path) and os.listdir(path) for path in ("/sys/class/infiniband", "/sys/class/cxi"))
    return Site(
        hostname=socket.gethostname(),
        cores=usable_cores(),
        gpus=count_gpus(environ),
        root=os.geteuid() == 0,
        fabric=fabric,
        executable=executable,
        environ=environ,
    )


def count_gpus(environ: Mapping[str, str]) -> int:
    """NVIDIA GPUs that a process here would see, without loading a driver library."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([item for item in visible.split(",") if item.strip() not in ("", "-1")])
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        return 0
