"""Commands and environments: plain values in, plain values out."""

from __future__ import annotations

import pytest

from dtrain.errors import LaunchError
from dtrain.launcher import mpi as finding
from dtrain.launcher import plan
from dtrain.launcher.mpi import INTEL, MPICH, OPEN_MPI, Mpi
from dtrain.launcher.spec import Host, LaunchSpec, Site, count_gpus

OPEN = Mpi("/venv/bin/mpirun", OPEN_MPI, 5, "next to python")
OLD = Mpi("/usr/bin/mpirun", OPEN_MPI, 4, "PATH")
HYDRA = Mpi("/venv/bin/mpirun", MPICH)
SITE = Site(hostname="lap", cores=8, executable="/venv/bin/python")
ROOT = Site(hostname="lap", cores=8, executable="/venv/bin/python", root=True)
HERE = LaunchSpec("train.py", ("--lr", "1"), hosts=(Host("lap", 2),), run_id="job-1")
TWO = LaunchSpec("train.py", hosts=(Host("a", 2), Host("b", 1)), local=False, run_id="job-1")


def command(spec, site=SITE, mpi=OPEN, environ=None, work=None):
    return plan.mpi_command(spec, site, mpi, environ or {}, work)


def test_open_mpi_here():
    rank = ["/venv/bin/python", plan.RANK_FILE, "script", "train.py", "--lr", "1"]
    options = ["--stdin", "none", "--bind-to", "none", "--oversubscribe"]
    assert command(HERE) == ["/venv/bin/mpirun", "-n", "2", *options, *rank]


def test_root_is_allowed_only_for_root():
    assert "--allow-run-as-root" in command(HERE, ROOT)
    assert "--allow-run-as-root" not in command(HERE, SITE)


def test_a_user_s_binding_is_left_alone():
    assert "--bind-to" not in command(HERE, environ={"PRTE_MCA_hwloc_default_binding_policy": "core"})


def test_mpirun_s_own_files_go_where_they_are_removed():
    assert "--prtemca prte_tmpdir_base /w --mca btl_sm_backing_directory /w" in " ".join(command(HERE, work="/w"))
    assert "/w" not in command(HERE, mpi=OLD, work="/w")
    assert "btl_sm_backing_directory" not in command(HERE, work="/w", environ={"OMPI_MCA_btl_sm_backing_directory": "/mine"})


def test_this_host_alone_inside_an_allocation():
    assert "--prtemca ras ^slurm --prtemca plm ^slurm" in " ".join(command(HERE, environ={"SLURM_JOB_ID": "1"}))
    assert "--mca ras ^slurm --mca plm ^slurm" in " ".join(command(HERE, mpi=OLD, environ={"SLURM_JOB_ID": "1"}))
    assert "-launcher fork" in " ".join(command(HERE, mpi=HYDRA, environ={"SLURM_JOB_ID": "1"}))


def test_several_hosts():
    line = " ".join(command(TWO, environ={"DTRAIN_CHANNEL_KEY": "secret", "PYTHONPATH": "/x", "SHELL": "sh", "NCCL_DEBUG": "1"}))
    assert "-n 3" in line and "--host a:2,b:1" in line and "--oversubscribe" not in line
    assert "-x DTRAIN_CHANNEL_KEY -x NCCL_DEBUG -x PYTHONPATH" in line
    assert "secret" not in line and "SHELL" not in line  # names only: ps shows command lines to everyone


def test_mpich():
    assert command(HERE, mpi=HYDRA)[:4] == ["/venv/bin/mpirun", "-n", "2", "-disable-auto-cleanup"]
    assert command(TWO, mpi=HYDRA)[3:6] == ["-disable-auto-cleanup", "-hosts", "a:2,b:1"]
    assert command(TWO, mpi=Mpi("m", INTEL))[3:5] == ["-hosts", "a:2,b:1"]


@pytest.mark.parametrize("kind, target", [("module", "pkg.train"), ("program", "/bin/date")])
def test_other_targets(kind, target):
    assert plan.rank_command(LaunchSpec(target, kind=kind), SITE)[2:] == [kind, target]


# ------------------------------------------------------------------------------------------------------- environments


def environment(spec, site=SITE, mpi=OPEN, settings="", port=4000):
    return plan.job_environment(spec, site, plan.job_variables(spec, site, "unix:/s", "", port), mpi, settings)


def test_what_ranks_share():
    found = environment(HERE)
    assert found["MASTER_ADDR"] == "127.0.0.1" and found["MASTER_PORT"] == "4000" and found["DTRAIN_RUN_ID"] == "job-1"
    assert found["TORCHELASTIC_RUN_ID"] == "job-1" and found["DTRAIN_RANKS_PER_NODE"] == "2" and found["DTRAIN_LAUNCH"] == "mpi"
    assert "DTRAIN_CHANNEL_KEY" not in found and "DTRAIN_THREADS_PER_RANK" not in found


def test_between_hosts_ranks_meet_at_the_first():
    found = environment(TWO, port=None)
    assert found["MASTER_ADDR"] == "a" and 15000 <= int(found["MASTER_PORT"]) < 30000 and found["DTRAIN_RANKS_PER_NODE"] == "2,1"
    site = Site(environ={"MASTER_ADDR": "a-ib", "MASTER_PORT": "77"})
    assert environment(TWO, site)["MASTER_ADDR"] == "a-ib" and environment(TWO, site)["MASTER_PORT"] == "77"


def test_a_flag_beats_the_environment():
    site = Site(environ={"MASTER_ADDR": "old", "MASTER_PORT": "77"})
    spec = LaunchSpec("t.py", local=False, hosts=(Host("a", 1),), master_addr="new", master_port=5)
    assert (environment(spec, site)["MASTER_ADDR"], environment(spec, site)["MASTER_PORT"]) == ("new", "5")


def test_an_outer_launcher_s_variables_do_not_leak():
    site = Site(environ={"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "OMPI_COMM_WORLD_RANK": "3", "KEPT": "1"})
    assert "RANK" not in environment(HERE, site) and environment(HERE, site)["KEPT"] == "1"
    assert "OMPI_COMM_WORLD_RANK" not in environment(HERE, site, mpi=None)


FAST = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}


def transports(found):
    return {name: value for name, value in found.items() if name in FAST}


def test_fast_transports_on_one_host_or_without_a_fabric():
    fabric = Site(fabric=True)
    assert transports(environment(HERE)) == FAST
    assert transports(environment(HERE, fabric)) == FAST
    assert transports(environment(TWO)) == FAST
    assert transports(environment(TWO, fabric)) == {}
    assert environment(HERE, mpi=OLD)["OMPI_MCA_btl"] == "self,vader,tcp"
    assert transports(environment(HERE, mpi=HYDRA)) == {}


@pytest.mark.parametrize("name", ["OMPI_MCA_pml", "OMPI_MCA_btl", "OMPI_MCA_mtl"])
def test_never_over_a_user_s_transports(name):
    found = environment(HERE, Site(environ={name: "mine"}))
    assert transports(found) == ({name: "mine"} if name in FAST else {})


@pytest.mark.parametrize("settings, left_alone", [("pml = ucx", True), ("  btl=tcp,self  # ours", True), ("# pml = ucx", False), ("pmlx = 1", False)])
def test_never_over_a_site_s_transports(settings, left_alone):
    assert transports(environment(HERE, settings=settings)) == ({} if left_alone else FAST)


def test_intel_does_not_pin_ranks_to_cores():
    assert environment(HERE, mpi=Mpi("m", INTEL))["I_MPI_PIN"] == "off"
    assert environment(HERE, Site(environ={"I_MPI_PIN": "on"}), mpi=Mpi("m", INTEL))["I_MPI_PIN"] == "on"


def test_local_ranks():
    assert plan.local_variables(HERE, 1) == {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    "environ, cores, local_size, expected",
    [
        ({}, 8, 2, dict.fromkeys(plan.THREADS, "4")),
        ({}, 2, 4, dict.fromkeys(plan.THREADS, "1")),
        ({"OMP_NUM_THREADS": "3"}, 8, 2, dict.fromkeys(plan.THREADS[1:], "3")),
        ({"MKL_NUM_THREADS": "7"}, 8, 2, {name: "4" for name in plan.THREADS if name != "MKL_NUM_THREADS"}),
        ({"OMP_NUM_THREADS": "3", "DTRAIN_THREADS_PER_RANK": "5"}, 8, 2, dict.fromkeys(plan.THREADS, "5")),
        ({"OMP_NUM_THREADS": "2,4"}, 8, 1, dict.fromkeys(plan.THREADS[1:], "2")),
    ],
)
def test_threads(environ, cores, local_size, expected):
    assert plan.thread_variables(environ, cores, local_size) == expected


def test_the_line_that_says_what_starts():
    assert plan.describe(HERE, OPEN) == "2 ranks (2 on lap) through Open MPI (/venv/bin/mpirun, next to python): train.py --lr 1"
    assert plan.describe(LaunchSpec("a b.py"), None) == "1 rank (1 on localhost) through the local backend: 'a b.py'"


# ------------------------------------------------------------------------------------------------------ which mpirun


def program(folder, name="mpirun", says=""):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


def test_the_mpirun_next_to_python_comes_first(tmp_path):
    beside = program(tmp_path / "venv/bin")
    program(tmp_path / "venv/bin", "prterun")
    elsewhere = program(tmp_path / "mpi/bin", says="HYDRA build details:")
    environ = {"PATH": str(tmp_path / "mpi/bin")}
    assert finding.find_mpi(environ, str(tmp_path / "venv/bin/python")) == Mpi(beside, OPEN_MPI, 5, "next to python")
    assert finding.find_mpi(environ, "/nowhere/python") == Mpi(elsewhere, MPICH, None, "PATH")


def test_the_mpirun_of_the_libmpi_that_will_be_loaded_comes_before_path(tmp_path):
    program(tmp_path / "other/bin", says="Intel(R) MPI Library for Linux* OS, Version 2021.9")
    ours = program(tmp_path / "mpi/bin", says="mpirun (Open MPI) 4.1.4")
    (tmp_path / "mpi/lib").mkdir()
    (tmp_path / "mpi/lib/libmpi.so").touch()
    environ = {"PATH": str(tmp_path / "other/bin"), "LD_LIBRARY_PATH": str(tmp_path / "mpi/lib")}
    assert finding.find_mpi(environ, "/nowhere/python") == Mpi(ours, OPEN_MPI, 4, "beside libmpi")
    environ = {"PATH": environ["PATH"], "MPI4PY_LIBMPI": str(tmp_path / "mpi/lib/libmpi.so")}
    assert finding.find_mpi(environ, "/nowhere/python").path == ours


def test_dtrain_mpirun_beats_all(tmp_path):
    program(tmp_path / "venv/bin", says="mpirun (Open MPI) 5.0.11")
    chosen = program(tmp_path / "mine", "run-it", says="HYDRA build details:")
    assert finding.find_mpi({"DTRAIN_MPIRUN": chosen}, str(tmp_path / "venv/bin/python")).path == chosen
    with pytest.raises(LaunchError, match="DTRAIN_MPIRUN='/no/mpirun' is not a program"):
        finding.find_mpi({"DTRAIN_MPIRUN": "/no/mpirun"}, "python")


def test_no_mpirun_names_the_remedies():
    with pytest.raises(LaunchError, match=r"no mpirun found .*pip install dtrain\[mpi\].*--backend local"):
        finding.find_mpi({"PATH": "/nowhere"}, "/nowhere/python")


def test_an_unknown_mpirun(tmp_path):
    path = program(tmp_path, says="my own launcher")
    with pytest.raises(LaunchError, match="of no MPI that dtrain knows"):
        finding.find_mpi({"DTRAIN_MPIRUN": path}, "python")


@pytest.mark.parametrize("text, vendor", [("mpirun (Open MPI) 5.0.11\n\nReport bugs", (OPEN_MPI, 5)), ("mpirun.real (OpenRTE) 4.0.3", (OPEN_MPI, 4)),
                                          ("HYDRA build details:\n    Version: 4.1", (MPICH, None)),
                                          ("Intel(R) MPI Library for Linux* OS, Version 2021.9 Build 20230307", (INTEL, None))])  # fmt: skip
def test_vendors_by_their_words(text, vendor):
    assert finding.vendor_of(text) == vendor


def test_parameter_files_of_user_and_site(tmp_path):
    (tmp_path / "mpi/etc").mkdir(parents=True)
    (tmp_path / "mpi/etc/openmpi-mca-params.conf").write_text("pml = ucx\n")
    (tmp_path / ".openmpi").mkdir()
    (tmp_path / ".openmpi/mca-params.conf").write_text("btl = self\n")
    text = finding.settings_of_site(Mpi(str(tmp_path / "mpi/bin/mpirun"), OPEN_MPI, 5), {"HOME": str(tmp_path)})
    assert "pml = ucx" in text and "btl = self" in text


def test_gpus_that_are_visible():
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "0,2"}) == 2
    assert count_gpus({"CUDA_VISIBLE_DEVICES": ""}) == count_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == 0
