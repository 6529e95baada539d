"""How a job finds its world: the choice for recorded environments, and real starts of processes."""

from __future__ import annotations

import sys
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import dtrain.distributed as dist
from dtrain.comm.store import HashStore
from dtrain.distributed.start import Plan, _single_name, choose
from dtrain.errors import ArgumentError, ConfigError, DistributedError, LaunchError, UnsupportedError
from tests.comm.jobs import _finish, _start
from tests.comm.pool import clean_env, free_port, mpirun

OMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
OMPI_TWO_HOSTS = OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
TWO_HOSTS = TORCHRUN | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NNODES": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_STEP_NODELIST": "n1", "SLURM_NODEID": "0"}
SRUN_TWO_HOSTS = SRUN | {"SLURM_NNODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NODELIST": "n[1-2]"}


def pick(environ: dict[str, str], name: str | None = None, init: str | None = None, size: int = -1, rank: int = -1,
         store: bool = False, mpi4py: bool = True) -> Plan:
    return choose(environ, name, init, size, rank, store, mpi4py)


@pytest.mark.parametrize("environ, name, mpi4py, kind, called, expected", [
    ({}, None, True, "single", "single", None),
    ({}, "gloo", True, "single", "gloo", None),
    ({}, "mpi", True, "mpi", "mpi", None),
    (OMPI, None, True, "mpi", "mpi", 4),
    (OMPI, "gloo", True, "mpi", "gloo", 4),
    (OMPI, "local", True, "local", "local", None),
    (OMPI, "single", True, "single", "single", None),
    (OMPI, None, False, "local", "local", None),
    (OMPI_TWO_HOSTS, None, True, "mpi", "mpi", 4),
    (HYDRA, None, True, "mpi", "mpi", 4),
    (TORCHRUN, None, True, "local", "local", None),
    (TORCHRUN, "gloo", True, "local", "gloo", None),
    (TORCHRUN | OMPI, None, True, "mpi", "mpi", 4),
    (TORCHRUN | OMPI | {"DTRAIN_LAUNCH": "local"}, None, True, "local", "local", None),
    (TWO_HOSTS | OMPI_TWO_HOSTS, None, True, "mpi", "mpi", 4),
    (SRUN, None, True, "local", "local", None),
    (SRUN | {"PMIX_RANK": "1"}, None, True, "mpi", "mpi", 4),
    (SRUN_TWO_HOSTS, None, True, "mpi", "mpi", 4),
])
def test_choice(environ: dict[str, str], name: str, mpi4py: bool, kind: str, called: str, expected: int | None) -> None:
    plan = pick(environ, name, mpi4py=mpi4py)
    assert (plan.kind, plan.name, plan.expected) == (kind, called, expected)
    if kind == "local":
        assert plan.size == 4 and plan.address is not None and plan.address[0] == "127.0.0.1"


@pytest.mark.parametrize("environ, mpi4py, words", [
    (TWO_HOSTS, True, "rank 3 of 4 on several hosts .2 here.*not started by MPI.*mpirun"),
    (OMPI_TWO_HOSTS, False, "several hosts.*mpi4py is not installed"),
])
def test_never_a_silent_world_of_one(environ: dict[str, str], mpi4py: bool, words: str) -> None:
    with pytest.raises(LaunchError, match=words):
        pick(environ, mpi4py=mpi4py)


def test_where_ranks_meet() -> None:
    assert pick(TORCHRUN).address == ("127.0.0.1", 29511)
    assert pick({}, None, "tcp://[::1]:81", 2, 1).address == ("::1", 81)
    assert pick(TORCHRUN, None, "tcp://host:80").rank == 3
    assert pick({}, None, "file:///tmp/x", 2, 1).file == "/tmp/x"
    assert pick({"RANK": "0", "WORLD_SIZE": "1"}, None, "env://", 2, 1).size == 2
    assert pick({}, None, None, 2, 1, store=True) == Plan("local", "local", 1, 2)
    for bad in ("tcp://host", "tcp://host:x", "file://x", "http://host:80", "tcp://:80"):
        with pytest.raises(ConfigError, match="expected env://, tcp://host:port or file:///path"):
            pick({}, None, bad, 2, 1)
    with pytest.raises(ArgumentError, match="0 <= rank < world_size; got 2 and 2"):
        pick({}, None, "tcp://host:80", 2, 2)


def test_names() -> None:
    assert _single_name("GLOO") == "gloo" and _single_name("cpu:gloo") == "gloo" and _single_name(None) is None
    for name in ("nccl", "cpu:gloo,cuda:nccl"):
        with pytest.raises(UnsupportedError, match="not built yet. Use backend='mpi' or 'gloo'"):
            _single_name(name)
    with pytest.raises(ArgumentError, match="unknown backend 'gluu'; known are mpi, gloo"):
        _single_name("gluu")
    with pytest.raises(ArgumentError, match="inside dtrain.comm.run_threads"):
        dist.init_process_group("threads")
    for options, words in [({"timeout": 0}, "above 0"), ({"timeout": "1"}, "timedelta"), ({"backend": 3}, "unknown backend"),
                           ({"store": HashStore(), "init_method": "env://"}, "not both")]:
        with pytest.raises(ArgumentError, match=words):
            dist.init_process_group(**options)
    assert not dist.is_initialized()


def test_a_world_of_one_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    import dtrain

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    dist.init_process_group()
    t = dtrain.ones(3)
    dist.all_reduce(t)
    assert t.tolist() == [1, 1, 1] and dist.get_backend() == "single" and dist.get_world_size() == 1
    dist.destroy_process_group()
    with pytest.raises(DistributedError, match="not initialised"):
        dist.barrier()


def test_one_store_serves_worlds_in_turn() -> None:
    store = HashStore(10)
    from dtrain.backend import state

    found: list[Any] = []

    def rank(r: int) -> None:
        with state.use_rank(state.RankState()):
            for _ in range(2):
                dist.init_process_group(store=store, rank=r, world_size=2, timeout=10)
                places = [None, None]
                dist.all_gather_object(places, r)
                found.append(places)
                dist.destroy_process_group()

    threads = [threading.Thread(target=rank, args=(r,)) for r in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [[0, 1]] * 4


SCRIPT = """
import os, sys
import dtrain, dtrain.distributed as dist
dist.init_process_group({arguments})
t = dtrain.ones(2) * (dist.get_rank() + 1)
dist.all_reduce(t)
places = [None] * dist.get_world_size()
dist.all_gather_object(places, dist.get_rank())
print(dist.get_backend(), dist.get_rank(), t.tolist(), places, flush=True)
{end}
"""


def run(tmp_path: Path, size: int, arguments: str = "", end: str = "", launcher: Any = None, variables: dict[str, str] | None = None) -> list[Any]:
    """Start the script on ``size`` processes with RANK and WORLD_SIZE, or under a launcher; how they ended."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(arguments=arguments, end=end))
    began, env = time.monotonic(), clean_env() | (variables or {})
    if launcher is not None:
        return [_finish(_start([*launcher, sys.executable, str(script)], env), began, 25)]
    env |= {"WORLD_SIZE": str(size)}
    children = [_start([sys.executable, str(script)], env | {"RANK": str(r), "MY_RANK": str(r)}) for r in range(size)]
    return [_finish(child, began, 25) for child in children]


def check(ended: list[Any], size: int, backend: str) -> None:
    lines = sorted(line for e in ended for line in e.out.splitlines())
    total = size * (size + 1) / 2
    assert lines == [f"{backend} {r} {[total, total]} {list(range(size))}" for r in range(size)], [(e.out, e.err) for e in ended]
    assert all(e.code == 0 and e.err == "" for e in ended), [e.err for e in ended]


def test_start_by_variables(tmp_path: Path) -> None:
    check(run(tmp_path, 3, variables={"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}), 3, "local")


def test_start_with_torchruns_own_store(tmp_path: Path) -> None:
    """Under torchrun its agent listens at MASTER_PORT."""
    with socket.socket() as agent:
        agent.bind(("127.0.0.1", 0))
        agent.listen()
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.getsockname()[1]), "TORCHELASTIC_USE_AGENT_STORE": "True",
                     "TORCHELASTIC_RUN_ID": "r1"}
        check(run(tmp_path, 2, "'gloo'", variables=variables), 2, "gloo")


def test_start_at_a_file_or_an_address(tmp_path: Path) -> None:
    check(run(tmp_path, 2, f"init_method='file://{tmp_path}/meet'"), 2, "local")
    assert not (tmp_path / "meet").exists()
    check(run(tmp_path, 2, f"'gloo', 'tcp://127.0.0.1:{free_port()}', rank=int(os.environ['MY_RANK']), world_size=2",
              "dist.destroy_process_group()"), 2, "gloo")


@pytest.mark.parametrize("arguments, backend", [("", "mpi"), ("'gloo'", "gloo"), ("'local'", "local")])
def test_start_by_mpirun(tmp_path: Path, arguments: str, backend: str) -> None:
    check(run(tmp_path, 2, arguments, launcher=mpirun(2)), 2, backend)


def test_slurm_and_mpi_disagree(tmp_path: Path) -> None:
    ended = run(tmp_path, 1, launcher=[], variables=SRUN_TWO_HOSTS)
    assert ended[0].code == 1 and "SLURM announced 4 ranks, but MPI (Open MPI" in ended[0].err and "sees 1" in ended[0].err


@pytest.mark.parametrize("launch", ["local", "mpi"])
def test_an_exception_ends_the_job(tmp_path: Path, launch: str) -> None:
    end = "if dist.get_rank() == 1: raise ValueError('the cause')\nwhile True: dist.barrier()"
    ended = run(tmp_path, 2, "", end, mpirun(2) if launch == "mpi" else None, {"MASTER_PORT": str(free_port())})
    assert all(e.code not in (0, None) for e in ended)
    assert "".join(e.err for e in ended).count("ValueError: the cause\n") >= 1
    assert "".join(e.err for e in ended).count("Traceback") == 1


def test_leaving_without_destroying(tmp_path: Path) -> None:
    """Rank 0 ends first; the other hears of it instead of waiting."""
    end = """
if dist.get_rank() == 1:
    try: dist.barrier()
    except dist.DistError as error: print(error)
"""
    ended = run(tmp_path, 2, "", end, variables={"MASTER_PORT": str(free_port())})
    assert [e.code for e in ended] == [0, 0] and "rank 0 has left the group" in ended[1].out
