"""The sbatch scripts: they parse, hold nothing personal, and ask `dtrain run` for what it takes."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from dtrain.launcher.options import parse
from dtrain.launcher.spec import Site

FOLDER = Path(__file__).parents[2] / "slurm"
SCRIPTS = ("single_node.sbatch", "multi_node.sbatch")
ONE = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "4", "SLURM_JOB_NODELIST": "n1"}
TWO = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "n[1-2]"}


def test_both_are_there():
    assert {path.name for path in FOLDER.glob("*.sbatch")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_parses(name):
    done = subprocess.run(["bash", "-n", FOLDER / name], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_personal_paths(name):
    text = (FOLDER / name).read_text().replace("#!/bin/bash", "").replace("/dev/null", "")
    assert re.findall(r"(?:^|[\s=:\"'])(/[\w.]+\S*|~\S*)", text) == []
    for option in ("account", "partition", "mail", "nodelist"):
        assert f"--{option}" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_settings_stand_before_the_first_command(name):
    lines = (FOLDER / name).read_text().splitlines()
    directives = [index for index, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [index for index, line in enumerate(lines) if line and not line.startswith("#") and not re.match(r"[A-Z]+=\$\{", line)]
    settings = [index for index, line in enumerate(lines) if re.match(r"[A-Z]+=\$\{", line)]
    assert directives and settings and max(directives) < min(settings) and max(settings) < min(commands)


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def batch(name: str, tmp_path: Path, slurm: dict[str, str], python: str) -> tuple[subprocess.Popen, Path]:
    """The script as sbatch would run it, with stand-ins for python and scontrol that write down how they were called."""
    calls = tmp_path / "calls"
    fake(tmp_path, "python", f'echo "python $*" >> {calls}\n{python}')
    fake(tmp_path, "scontrol", f'echo "scontrol $*" >> {calls}')
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": "none", "SCRIPT": "train.py", "ARGS": "--lr 1 --resume"} | slurm
    return subprocess.Popen(["bash", FOLDER / name], env=env, cwd=tmp_path), calls


@pytest.mark.parametrize("name, slurm, nodes", [(SCRIPTS[0], ONE, [4]), (SCRIPTS[1], TWO, [2, 2])])
def test_what_it_runs_is_understood(name, slurm, nodes, tmp_path, monkeypatch):
    job, calls = batch(name, tmp_path, slurm, "exit 3")
    assert job.wait(20) == 3  # the training's own exit code
    words = shlex.split(calls.read_text())
    assert words[:4] == ["python", "-m", "dtrain", "run"]
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    spec = parse(words[4:], Site(hostname="n1", environ=slurm))
    assert (spec.target, spec.args, spec.ranks_per_node, spec.local) == ("train.py", ("--lr", "1", "--resume"), nodes, len(nodes) == 1)


SAVES = "trap 'sleep 0.2; echo saved; exit 0' TERM; touch up; sleep 30 & wait"


def stop(name: str, tmp_path: Path, slurm: dict[str, str], signal_name: str) -> tuple[int, str]:
    job, calls = batch(name, tmp_path, slurm, SAVES)
    end = 200
    while not (tmp_path / "up").exists() and end:
        subprocess.run(["sleep", "0.05"])
        end -= 1
    subprocess.run(["kill", f"-{signal_name}", str(job.pid)], check=True)
    return job.wait(20), calls.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_before_the_time_limit_it_saves_and_asks_for_another_turn(name, tmp_path):
    code, calls = stop(name, tmp_path, ONE, "USR1")
    assert code == 0 and calls.endswith("scontrol requeue 7\n")


def test_a_task_of_an_array_is_requeued_by_its_two_numbers(tmp_path):
    _, calls = stop(SCRIPTS[0], tmp_path, ONE | {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}, "USR1")
    assert calls.endswith("scontrol requeue 5_3\n")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_cancelled_job_saves_and_is_not_requeued(name, tmp_path):
    code, calls = stop(name, tmp_path, ONE, "TERM")
    assert code == 0 and "scontrol" not in calls
