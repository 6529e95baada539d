"""env.resolve, on recorded environments of real launchers and on broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.env import World, mpi_size, node_of, port_for, resolve, slurm_hosts, slurm_tasks_per_node, usable_cores
from dtrain.errors import ConfigError


def recorded(name: str) -> dict[str, str]:
    lines = (Path(__file__).parent / "recorded" / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


# rank, size, local rank, local size, node, nodes, master, source
RECORDED = {
    "open_mpi_5_rank_1_of_2": (1, 2, 1, 2, 0, 1, "127.0.0.1", "OMPI"),
    "open_mpi_5_in_slurm_rank_3_of_4": (3, 4, 1, 2, 1, 2, "n0", "OMPI"),
    "mpich_5_rank_1_of_2": (1, 2, 1, 2, 0, 1, "127.0.0.1", "PMI"),
    "slurm_srun_task_2_of_3": (2, 3, 0, 1, 1, 2, "n0", "SLURM"),
    "slurm_srun_pmi2_task_1_of_2": (1, 2, 0, 1, 1, 2, "n0", "PMI"),
    "slurm_salloc_shell": (0, 1, 0, 1, 0, 1, None, "single process"),
    "slurm_batch_script": (0, 1, 0, 1, 0, 1, None, "single process"),
    "slurm_srun_pty_shell": (0, 1, 0, 1, 0, 1, None, "single process"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name):
    world = resolve(recorded(name))
    found = (world.rank, world.size, world.local_rank, world.local_size, world.node_rank, world.num_nodes, world.master_addr, world.source)
    assert found == RECORDED[name]


def test_every_recording_is_tested():
    assert {path.stem for path in (Path(__file__).parent / "recorded").glob("*.env")} == set(RECORDED)


def test_torchrun_speaks_before_mpirun():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "29400"}
    assert resolve(recorded("open_mpi_5_rank_1_of_2") | torchrun) == World(5, 8, 1, 4, 1, 2, "h", 29400, "RANK")


def test_mpirun_speaks_before_slurm():
    assert resolve(recorded("slurm_srun_task_2_of_3") | recorded("mpich_5_rank_1_of_2")).source == "PMI"


def test_nothing_set_is_a_single_process():
    assert resolve({}) == World()


def test_the_two_variables_alone():
    assert resolve({"RANK": "1", "WORLD_SIZE": "2"}) == World(1, 2, 1, 2, 0, 1, "127.0.0.1", 29500, "RANK")


def test_local_rank_from_local_size():
    assert resolve({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}).local_rank == 1


def test_an_interactive_slurm_step_stays_single():
    shell = recorded("slurm_srun_task_2_of_3") | {"SLURM_STEP_ID": "4294967290", "SLURM_STEPID": "4294967290"}
    assert resolve(shell) == World()


def test_uneven_nodes_are_told_by_the_launcher():
    environ = {"OMPI_COMM_WORLD_RANK": "4", "OMPI_COMM_WORLD_SIZE": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    environ |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert resolve(environ).node_rank == 2  # all that can be known
    world = resolve(environ | {"DTRAIN_RANKS_PER_NODE": "4,2"})
    assert (world.node_rank, world.num_nodes) == (1, 2)


def test_the_port_is_the_job_s():
    one = resolve(recorded("slurm_srun_task_2_of_3"))
    other = resolve(recorded("slurm_srun_task_2_of_3") | {"SLURM_JOB_ID": "77"})
    assert one.master_port != other.master_port
    assert 15000 <= one.master_port < 30000
    assert one.master_port == port_for("1.0")


def test_ranks_of_mpirun_in_slurm_agree_though_their_steps_differ():
    remote = recorded("open_mpi_5_in_slurm_rank_3_of_4") | {"SLURM_STEP_NODELIST": "n1"}
    beside_mpirun = {name: value for name, value in remote.items() if "STEP" not in name}
    one, other = resolve(remote), resolve(beside_mpirun)
    assert (one.master_addr, one.master_port) == (other.master_addr, other.master_port) == ("n0", one.master_port)


def test_variables_are_torchrun_s():
    variables = resolve(recorded("open_mpi_5_rank_1_of_2") | {"MASTER_PORT": "1234"}).variables()
    assert variables["RANK"] == "1" and variables["WORLD_SIZE"] == "2" and variables["GROUP_RANK"] == "0"
    assert variables["MASTER_ADDR"] == "127.0.0.1" and variables["MASTER_PORT"] == "1234"
    assert resolve(variables) == resolve(recorded("open_mpi_5_rank_1_of_2") | variables)


def test_mpi_size():
    assert mpi_size(recorded("open_mpi_5_rank_1_of_2")) == 2
    assert mpi_size(recorded("mpich_5_rank_1_of_2")) == 2
    assert mpi_size(recorded("slurm_srun_task_2_of_3")) is None


@pytest.mark.parametrize(
    "environ, says",
    [
        ({"RANK": "1"}, "RANK='1' is set but WORLD_SIZE is not"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE='4' is set but RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "the rank is 2, but there are 2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK must be an integer, got 'one'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be at least 0, got -1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE must be at least 1, got 0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "the local rank is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"}, "3 ranks on this host, but only 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "70000"}, "at most 65535, got 70000"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "x"}, "MASTER_PORT must be an integer"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE is not"),
        ({"PMI_SIZE": "2"}, "PMI_RANK is not"),
    ],
)
def test_contradictions(environ, says):
    with pytest.raises(ConfigError, match=says):
        resolve(environ)


def test_slurm_task_beyond_the_layout():
    with pytest.raises(ConfigError, match="SLURM_NODEID is 1, but SLURM_STEP_TASKS_PER_NODE='3' lists 1 nodes"):
        resolve(recorded("slurm_srun_task_2_of_3") | {"SLURM_STEP_TASKS_PER_NODE": "3"})


@pytest.mark.parametrize(
    "text, hosts",
    [
        ("n[01-03,7],gpu5", ["n01", "n02", "n03", "n7", "gpu5"]),
        ("a", ["a"]),
        ("a,b-1,c.d", ["a", "b-1", "c.d"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("n[1-2]-ib0", ["n1-ib0", "n2-ib0"]),
    ],
)
def test_slurm_hosts(text, hosts):
    assert slurm_hosts(text) == hosts


@pytest.mark.parametrize("text", ["", ",", "n[1-2", "n[2-1]", "n[a-b]", "n[]", "n1]", "a,,b", "n[0-999999999]"])
def test_slurm_hosts_refused(text):
    with pytest.raises(ConfigError, match="Slurm node list"):
        slurm_hosts(text)


@pytest.mark.parametrize("text, counts", [("2(x2),1", [2, 2, 1]), ("4", [4]), ("1,2", [1, 2]), ("3(x1)", [3])])
def test_tasks_per_node(text, counts):
    assert slurm_tasks_per_node(text) == counts


@pytest.mark.parametrize("text", ["", "2(x", "2x2", "a", "2,,1", "2(xb)"])
def test_tasks_per_node_refused(text):
    with pytest.raises(ConfigError, match="tasks per node"):
        slurm_tasks_per_node(text)


def test_node_of():
    assert [node_of(rank, [1, 3, 2]) for rank in range(6)] == [0, 1, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="beyond the 6 ranks"):
        node_of(6, [1, 3, 2])


@pytest.mark.parametrize("affinity, cpu_max, cores", [(8, "max 100000", 8), (8, "250000 100000", 3), (2, "800000 100000", 2), (4, "", 4), (4, "1000 100000", 1)])
def test_usable_cores(affinity, cpu_max, cores):
    assert usable_cores(affinity, cpu_max) == cores
