"""The command line as a user meets it: one clear line and exit code 2 for what cannot be run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dtrain import cli
from dtrain.launcher import doctor
from dtrain.launcher.doctor import BROKEN, OK

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def dtrain(*args: str, cwd=None, **environ: str):
    env = os.environ | {"PYTHONPATH": ROOT} | environ
    return subprocess.run([sys.executable, "-m", "dtrain", *args], capture_output=True, text=True, timeout=60, env=env, cwd=cwd)


@pytest.mark.parametrize(
    "args, says",
    [
        (("run", "--nproc", "2", "t.py"), "unknown flag '--nproc'; did you mean '--nproc-per-node'?"),
        (("run",), "no script given"),
        (("run", "-n", "2", "tt.py"), "script 'tt.py' not found; did you mean 't.py'?"),
        (("run", "-n", "0", "t.py"), "-n: must be at least 1, got 0"),
        (("run", "-n", "x", "t.py"), "-n: must be a whole number, got 'x'"),
        (("run", "--hosts", "no-such-host.invalid:2", "t.py"), "'no-such-host.invalid' cannot be reached"),
        (("run", "-n", "2", "--backend", "local", "--log-dir", "/proc/none", "t.py"), "--log-dir '/proc/none' cannot be written"),
        (("ran", "t.py"), "unknown command 'ran'; did you mean 'run'?"),
        (("doctor", "--fast"), "takes no arguments"),
    ],
)
def test_bad_input(tmp_path, args, says):
    (tmp_path / "t.py").write_text("print('it ran')\n")
    done = dtrain(*args, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[dtrain] ")]
    assert done.returncode == 2 and len(lines) == 1 and says in lines[0] and ": error: " in lines[0], done.stderr
    assert done.stdout == ""


def test_mpi_not_installed(tmp_path):
    (tmp_path / "t.py").write_text("print('it ran')\n")
    (tmp_path / "python").symlink_to(sys.executable)  # a Python without an mpirun beside it
    env = {"PATH": "/nowhere", "PYTHONPATH": ROOT}
    done = subprocess.run([tmp_path / "python", "-m", "dtrain", "run", "-n", "2", "t.py"], capture_output=True, text=True, timeout=60, env=env, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "no mpirun found" in done.stderr and "pip install dtrain[mpi]" in done.stderr and "--backend local" in done.stderr


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0 and "doctor" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("dtrain ")
    assert cli.main([]) == 2
    done = dtrain("run", "--help")
    assert done.returncode == 0 and "--nproc-per-node" in done.stdout and "--nproc_per_node" not in done.stdout


def test_the_launcher_is_light():
    code = "import sys; import dtrain.cli, dtrain.launcher.run, dtrain.launcher.job, dtrain.launcher.rank, dtrain.launcher.supervise, dtrain.launcher.doctor"
    code += "; print(sorted({m.partition('.')[0] for m in sys.modules} & {'numpy', 'cupy', 'mpi4py', 'onnx', 'zmq', 'tempfile', 'multiprocessing'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": ROOT})
    assert done.stdout == "[]\n", done.stderr


# --------------------------------------------------------------------------------------------------------------- doctor


def test_doctor():
    done = dtrain("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("dtrain", "packages", "numpy", "mpirun", "mpi4py", "CUDA", "cores", "/dev/shm", "Slurm", "this process"):
        assert f"] {name}" in done.stdout
    assert "rank 0 of 1 (from: single process)" in done.stdout


def test_doctor_names_a_broken_environment():
    done = dtrain("doctor", RANK="3")
    assert done.returncode == 1 and "[BROKEN] this process RANK='3' is set but WORLD_SIZE is not" in done.stdout


def test_doctor_survives_a_probe_that_crashes(monkeypatch):
    monkeypatch.setitem(doctor.PROBES, "mpi", "import os; os.kill(os.getpid(), 11)")
    assert doctor.probe(["mpi"], dict(os.environ)) == {"mpi": {"error": "signal 11"}}
    monkeypatch.setitem(doctor.PROBES, "mpi", "raise ImportError('no libmpi')")
    answer = doctor.probe(["mpi"], dict(os.environ))["mpi"]
    assert answer == {"error": "ImportError: no libmpi"}
    findings = {finding.name: finding for finding in doctor.mpi_findings({"DTRAIN_MPIRUN": "/nowhere"}, answer)}
    assert findings["mpirun"].state == "absent" and "no libmpi" in findings["mpi4py"].text and findings["mpi4py"].remedy


def test_doctor_compares_vendors(tmp_path):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\necho 'HYDRA build details:'\n")
    mpirun.chmod(0o755)
    answer = {"mpi4py": "4.1", "library": "Open MPI v5", "vendor": "Open MPI", "level": 3, "size": 1}
    broken = list(doctor.mpi_findings({"DTRAIN_MPIRUN": str(mpirun)}, answer))[1]
    assert broken.state == BROKEN and "mpirun is MPICH's" in broken.text
    assert list(doctor.mpi_findings({"DTRAIN_MPIRUN": str(mpirun)}, answer | {"vendor": "MPICH"}))[1].state == OK


def test_doctor_on_kernels_gpus_and_slurm(monkeypatch):
    monkeypatch.delenv("DTRAIN_REQUIRE_NATIVE", raising=False)
    absent = {"there": False, "why": "the kernels were not built; install a compiler", "isa": "none", "threads": 1}
    assert (doctor.native_finding(absent).state, doctor.native_finding(absent).remedy) == ("absent", "install a compiler")
    monkeypatch.setenv("DTRAIN_REQUIRE_NATIVE", "1")
    assert doctor.native_finding(absent).state == BROKEN
    gpu = {"devices": ["H100", "H100"], "nccl": 22703, "problem": ""}
    assert "2 x H100; NCCL 22703" in doctor.cuda_finding(gpu, "cupy-cuda12x 14", 2).text
    assert "no NCCL" in doctor.cuda_finding(gpu | {"nccl": None}, "cupy-cuda12x 14", 2).text
    assert doctor.cuda_finding({"devices": [], "nccl": None, "problem": "old driver"}, "cupy", 2).state == BROKEN
    assert doctor.cuda_finding(None, None, 2).remedy and not doctor.cuda_finding(None, None, 0).remedy
    assert "JOB_ID=7" in doctor.slurm_finding({"SLURM_JOB_ID": "7"}).text
