"""From a command line to a LaunchSpec, on machines that are written down."""

from __future__ import annotations

import pytest

from dtrain.errors import ConfigError
from dtrain.launcher.options import build_parser, parse
from dtrain.launcher.spec import Host, Site, Streams

LAPTOP = Site(hostname="lap.home", cores=8, executable="/venv/bin/python")
GPUS = Site(hostname="big", cores=64, gpus=4)
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_NTASKS": "8"}
SLURM = Site(hostname="n0", cores=4, environ=ALLOCATION)


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("pass\n")
    monkeypatch.chdir(tmp_path)


def spec(line: str, site: Site = LAPTOP):
    return parse([*line.split(), "train.py"], site)


def hosts(line: str, site: Site = LAPTOP) -> list[tuple[str, int]]:
    return [(host.name, host.ranks) for host in spec(line, site).hosts]


def test_one_rank_needs_no_mpi():
    assert (spec("").size, spec("").backend, spec("").local) == (1, "local", True)
    assert spec("--backend mpi").backend == "mpi"
    assert spec("-n 2").backend == "mpi"
    assert spec("-n 2 --backend local").backend == "local"


@pytest.mark.parametrize("line", ["-n 4", "-n4", "-np 4", "--num-ranks 4", "--nproc-per-node=4", "--nproc_per_node 4", "--nnodes 1 --nproc-per-node 4",
                                  "--nnodes=1:1 --nproc-per-node 4", "-n 4 --nproc-per-node 4", "--standalone -n 4", "--hosts lap:4", "--hosts localhost -n 4",
                                  "--node-rank 0 -n 4", "-n 4 --max-restarts 0"])  # fmt: skip
def test_four_ranks_here(line):
    assert (spec(line).size, spec(line).local) == (4, True)


@pytest.mark.parametrize("word, site, ranks", [("cpu", LAPTOP, 8), ("auto", LAPTOP, 8), ("gpu", GPUS, 4), ("auto", GPUS, 4), ("cpu", GPUS, 64)])
def test_ranks_per_node_by_word(word, site, ranks):
    assert spec(f"--nproc-per-node {word}", site).size == ranks


@pytest.mark.parametrize(
    "line, placed",
    [
        ("--hosts a:2,b:3", [("a", 2), ("b", 3)]),
        ("--hosts a,b -n 6", [("a", 3), ("b", 3)]),
        ("--hosts a,b --nproc-per-node 4", [("a", 4), ("b", 4)]),
        ("--hosts a,b,c --nnodes 2 --nproc_per_node 4", [("a", 4), ("b", 4)]),
        ("--hosts n[1-2]:2", [("n1", 2), ("n2", 2)]),
        ("--hosts a:2,b:3 -n 3", [("a", 2), ("b", 1)]),
        ("--hosts a:2,b:3 -n 2", [("a", 2)]),
        ("--hosts a,b", [("a", 1), ("b", 1)]),
    ],
)
def test_hosts(line, placed):
    assert hosts(line) == placed
    assert not spec(line).local


def test_one_host_that_is_not_this_one():
    assert not spec("--hosts far:2").local
    assert spec("--hosts far:1").backend == "mpi"


def test_hostfile(tmp_path):
    (tmp_path / "hosts").write_text("# cluster\na slots=2\n\nb:3 # big\n")
    assert hosts("--hostfile hosts") == [("a", 2), ("b", 3)]


def test_a_slurm_allocation_is_used():
    assert hosts("", SLURM) == [("n0", 4), ("n1", 4)]
    assert hosts("--nnodes 1", SLURM) == [("n0", 4)] and spec("--nnodes 1", SLURM).local
    assert hosts("-n 2 --nnodes 1", SLURM) == [("n0", 2)]
    assert hosts("--nnodes 2 --nproc-per-node 1", SLURM) == [("n0", 1), ("n1", 1)]
    assert hosts("--standalone -n 2", SLURM) == [("n0", 2)]
    assert hosts("--backend local -n 2", SLURM) == [("n0", 2)]


def test_slurm_knows_this_node_by_another_name():
    site = Site(hostname="vm", environ=ALLOCATION | {"SLURMD_NODENAME": "n0"})
    assert spec("--nnodes 1", site).local and not spec("", site).local


def test_every_task_of_a_step_would_start_a_job():
    with pytest.raises(ConfigError, match="one of 8 tasks of a Slurm step"):
        spec("", Site(environ=ALLOCATION | {"SLURM_STEP_NUM_TASKS": "8"}))


def test_where_ranks_meet():
    assert (spec("--rdzv-endpoint h:29400").master_addr, spec("--rdzv-endpoint h:29400").master_port) == ("h", 29400)
    assert (spec("--rdzv_endpoint localhost:0").master_addr, spec("--rdzv_endpoint localhost:0").master_port) == ("localhost", None)
    assert (spec("--master-addr h --master_port 5").master_addr, spec("--master-addr h --master_port 5").master_port) == ("h", 5)


def test_everything_after_the_script_is_the_script_s():
    spec = parse(["-n", "2", "train.py", "-n", "9", "--lr", "3", "--", "--help"], LAPTOP)
    assert (spec.size, spec.target, spec.args) == (2, "train.py", ("-n", "9", "--lr", "3", "--", "--help"))


def test_modules_and_programs():
    assert parse(["-m", "package.train", "--x"], LAPTOP).kind == "module"
    assert parse(["--no-python", "/bin/date"], LAPTOP).kind == "program"
    assert parse(["--no_python", "date", "-u"], LAPTOP).args == ("-u",)


def test_streams():
    plain = spec("--log-dir d")
    assert (plain.to_file(0), plain.to_screen(0)) == (3, 3)
    tee = spec("--log-dir d --tee 1")
    assert (tee.to_file(0), tee.to_screen(0)) == (1, 3)
    redirect = spec("--log-dir d --redirects 0:3,1:2")
    assert [(redirect.to_file(r), redirect.to_screen(r)) for r in range(3)] == [(3, 0), (2, 1), (0, 3)]
    only = spec("--local-ranks-filter 0,2")
    assert [only.to_screen(r) for r in range(3)] == [3, 0, 3] and only.to_file(0) == 0
    assert spec("").tee == Streams()


def test_run_ids_differ_and_carry_the_given_name():
    one, other = spec("--rdzv-id my/job"), spec("--rdzv-id my/job")
    assert one.run_id != other.run_id and one.run_id.startswith("my-job-")


@pytest.mark.parametrize(
    "line, says",
    [
        ("-n 0", r"-n: must be at least 1, got 0"),
        ("-n -3", r"-n: must be at least 1, got -3"),
        ("-n two", r"-n: must be a whole number, got 'two'"),
        ("-n 1.5", r"-n: must be a whole number, got '1.5'"),
        ("--nproc-per-node 0", r"--nproc-per-node: must be at least 1, got 0"),
        ("--nproc_per_node many", r"--nproc_per_node: must be a whole number, got 'many'"),
        ("--nproc-per-node gpu", r"this host shows no GPU"),
        ("--nnodes 1:4", r"a changing number of nodes is not built"),
        ("--nnodes none", r"--nnodes must be a number"),
        ("--nnodes 2", r"no other host is known"),
        ("--nnodes 3 --hosts a,b", r"only 2 hosts are known"),
        ("--node-rank 1", r"run it once"),
        ("--max-restarts 3", r"does not restart a job"),
        ("--rdzv-backend etcd", r"expected static or c10d"),
        ("--rdzv-endpoint h:many", r"port must be a whole number"),
        ("--rdzv-endpoint h:1 --master-port 2", r"give one"),
        ("--master-port 70000", r"at most 65535, got 70000"),
        ("--standalone --nnodes 2", r"this host alone"),
        ("--standalone --master-port 2", r"picks a free port"),
        ("--hosts a --hostfile b", r"give one"),
        ("--hosts a:0,b:1", r"cannot read 'a:0'"),
        ("--hosts a:x", r"cannot read 'a:x'"),
        ("--hosts a,a", r"'a' is named twice"),
        ("--hosts a:2,b", r"write it for all"),
        ("--hosts a,b -n 3", r"does not divide over 2 hosts"),
        ("--hosts a:1,b:1 -n 3", r"-n 3 ranks, but the hosts take 2"),
        ("--hosts a:2,b:2 --backend local", r"this host only"),
        ("--hostfile nowhere", r"'nowhere' cannot be read"),
        ("-n 2 --nproc-per-node 3", r"-n 2 contradicts --nproc-per-node 3"),
        ("--backend gloo", r"--backend: invalid choice: 'gloo'"),
        ("--tee 3", r"say where with --log-dir"),
        ("--log-dir d --tee 4", r"must be 0, 1, 2 or 3"),
        ("--local-ranks-filter a", r"must be local ranks"),
        ("--threads-per-rank 0", r"must be at least 1"),
        ("--grace soon", r"number of seconds"),
        ("--nproc 4", r"unknown flag '--nproc'; did you mean '--nproc-per-node'\?"),
        ("--max_restart=0", r"unknown flag '--max_restart'; did you mean '--max-restarts'\?"),
        ("--zzz", r"unknown flag '--zzz'; see dtrain run --help"),
        ("-m --no-python", r"exclude each other"),
        ("-n", r"-n: must be a whole number, got 'train.py'"),
    ],
)  # fmt: skip
def test_refused(line, says):
    with pytest.raises(ConfigError, match=says):
        spec(line)


def test_empty_and_broken_hostfiles(tmp_path):
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "broken").write_text("a slots=2\nb slots=none\n")
    with pytest.raises(ConfigError, match="names no host"):
        spec("--hostfile empty")
    with pytest.raises(ConfigError, match="broken:2: cannot read 'b slots=none'"):
        spec("--hostfile broken")


def test_scripts_that_are_not_there():
    with pytest.raises(ConfigError, match="no script given"):
        parse([], LAPTOP)
    with pytest.raises(ConfigError, match=r"script 'trian.py' not found; did you mean 'train.py'\?"):
        parse(["trian.py"], LAPTOP)
    with pytest.raises(ConfigError, match=r"script 'no/such.py' not found \(looked in "):
        parse(["no/such.py"], LAPTOP)


def test_every_flag_of_torchrun_that_is_taken_has_both_spellings():
    names = {name for action in build_parser()._actions for name in action.option_strings}
    for name in names:
        if name.startswith("--") and "-" in name[2:]:
            assert "--" + name[2:].replace("-", "_") in names
    assert not [line for line in build_parser().format_help().splitlines() if line.strip().startswith("--") and "_" in line.split()[0]]


def test_ranks_per_node():
    found = spec("--hosts a:2,b:1")
    assert (found.size, found.ranks_per_node, found.hosts[0]) == (3, [2, 1], Host("a", 2))
