"""Importing mpi4py well, and making the world group out of MPI_COMM_WORLD."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

from dtrain.comm import failure
from dtrain.comm.group import DEFAULT_TIMEOUT, Group
from dtrain.comm.rendezvous import node_id
from dtrain.comm.shm.exchange import SharedMemory
from dtrain.comm.shm.segment import Layout, Segment
from dtrain.comm.single import Single
from dtrain.comm.transport import Transport
from dtrain.errors import DistributedError, LaunchError

_FAST = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}
_FABRICS = ("/sys/class/infiniband", "/sys/class/cxi")


def load() -> Any:
    """The module ``mpi4py.MPI``, initialised with MPI_THREAD_MULTIPLE where the library grants it."""
    if "mpi4py.MPI" not in sys.modules:
        tune(os.environ)
    try:
        import mpi4py

        mpi4py.rc.thread_level = "multiple"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"the mpi backend needs mpi4py and an MPI library ({error}); pip install 'dtrain[mpi]', "
            "or load your cluster's MPI and pip install mpi4py"
        ) from None
    return MPI


def tune(environ: MutableMapping[str, str], settings: str | None = None, fabrics: bool | None = None) -> None:
    """Let Open MPI skip its search for fast networks where there are none: a tenth of the start.

    Only if all ranks are on this host or it has no such network, and never over a setting of the user or site.
    """
    fabrics = any(map(os.path.exists, _FABRICS)) if fabrics is None else fabrics
    size, here = environ.get("OMPI_COMM_WORLD_SIZE"), environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    if fabrics and (size is None or size != here):
        return
    settings = _settings_files(environ) if settings is None else settings
    if any(name in environ for name in _FAST) or re.search(r"^\s*(pml|btl)\s*=", settings, re.MULTILINE):
        return
    environ.update(_FAST)


def _settings_files(environ: Mapping[str, str]) -> str:
    """The text of Open MPI's parameter files, the user's and the site's."""
    names = [os.path.expanduser("~/.openmpi/mca-params.conf")]
    names += [os.path.join(p, "etc", "openmpi-mca-params.conf") for p in (environ.get("OPAL_PREFIX"), sys.prefix, "/usr", "") if p is not None]
    text = ""
    for name in names:
        with contextlib.suppress(OSError), open(name, errors="replace") as file:
            text += file.read() + "\n"
    return text


def mpi_group(timeout: float = DEFAULT_TIMEOUT, *, shared_memory: bool = True, chunk: int | None = None,
              expected: int | None = None, launcher: str = "the launcher", backend: str = "mpi") -> Group:
    """The world of all MPI ranks. ``shared_memory=False`` uses MPI messages on one node too.

    ``expected`` is the size that ``launcher`` announced; another size of MPI's is a LaunchError.
    """
    MPI = load()
    check_size(MPI.COMM_WORLD.size, expected, MPI.Get_library_version().split(",")[0].strip("\0\n "), launcher)
    comm = MPI.COMM_WORLD.Dup()
    if comm.size == 1:
        return Group(Single(), backend, timeout)
    failure.install(comm.rank, lambda code: _kill(MPI, code))
    ranks = tuple(range(comm.size))
    nodes = comm.allgather(node_id())
    if shared_memory and len(set(nodes)) == 1:
        return Group(_share(comm, ranks, timeout, chunk), backend, timeout)
    from dtrain.comm.mpi.exchange import MpiTransport

    transport: Transport = MpiTransport(MPI, comm, ranks, nodes, "world", timeout, chunk, shared_memory)
    return Group(transport, backend, timeout)


def check_size(found: int, expected: int | None, library: str, launcher: str = "the launcher") -> None:
    """Raise LaunchError where the launcher and MPI disagree on the number of ranks."""
    if expected is not None and found != expected:
        raise LaunchError(
            f"{launcher} announced {expected} ranks, but MPI ({library}) sees {found}: the mpirun or srun that started this job does "
            "not belong to the MPI library that mpi4py loads. Use the mpirun next to this Python "
            f"({os.path.join(os.path.dirname(sys.executable), 'mpirun')}), `dtrain run`, or under Slurm `srun --mpi=pmi2` with MPICH "
            "or mpirun inside the allocation with Open MPI"
        )


def _kill(MPI: Any, code: int) -> None:
    if not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(code)


def _share(comm: Any, ranks: tuple[int, ...], timeout: float, chunk: int | None) -> SharedMemory:
    layout, segment, note = Layout.default(comm.size, chunk), None, None
    if comm.rank == 0:
        try:
            segment = Segment.shared(layout.total)
            note = segment.handle
        except DistributedError as error:
            note = {"error": str(error)}
    note = comm.bcast(note)
    if "error" in note:
        raise DistributedError(note["error"])
    transport = SharedMemory(segment or Segment.attach(note), layout, comm.rank, ranks, "world", timeout)
    transport.control.meet()
    transport.segment.unlink()
    return transport
