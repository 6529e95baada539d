"""Real jobs, started as users start them. Ranks run without NumPy: what is tested is the launcher."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtrain.launcher.sweep import processes_of

ROOT = str(Path(__file__).parents[2])
LIMIT = 40  # seconds: a job that hangs fails its own test
BOTH = pytest.mark.parametrize("backend", ["mpi", "local"])


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "dtrain", "run", *args]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS") and name != "PYTHONUNBUFFERED"}
    return kept | {"PYTHONPATH": ROOT} | more


@pytest.fixture
def script(tmp_path):
    """Writes a script and gives its path; afterwards nothing of the job may be left."""

    def write(source: str) -> str:
        path = tmp_path / "train.py"
        path.write_text("import json, os, sys, time\nrank = int(os.environ['RANK'])\nprint('job', os.environ['DTRAIN_RUN_ID'], flush=True)\n" + source)
        return str(path)

    yield write


def run(*args: str, **environ: str):
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=LIMIT, env=environment(**environ))
    assert_nothing_left(done.stdout)
    return done


def assert_nothing_left(output: str) -> None:
    found = re.search(r"job (\S+)", output)
    if found:
        assert processes_of(found[1]) == []
        assert not [path for folder in ("/dev/shm", "/tmp") for path in os.listdir(folder) if found[1] in path]


def last_line(done) -> str:
    return done.stderr.strip().splitlines()[-1]


NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "DTRAIN_NUM_THREADS")


@BOTH
def test_what_ranks_see(script, backend):
    done = run("-n", "2", "--backend", backend, "--no-prefix", script(f"print(json.dumps({{n: os.environ.get(n) for n in {NAMES}}}))"))
    seen = sorted((json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")), key=lambda found: found["RANK"])
    assert done.returncode == 0 and len(seen) == 2, done.stderr
    for rank, found in enumerate(seen):
        assert (found["RANK"], found["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"], found["NODE_RANK"], found["GROUP_RANK"]) == ("2", "2", "0", "0")
        assert found["MASTER_ADDR"] == "127.0.0.1" and found["OMP_NUM_THREADS"] == found["DTRAIN_NUM_THREADS"]
    assert seen[0]["MASTER_PORT"] == seen[1]["MASTER_PORT"] and seen[0]["MASTER_PORT"].isdigit()


def test_a_user_s_threads_are_kept(script):
    source = "print('threads', os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'], os.environ['DTRAIN_NUM_THREADS'])"
    assert "threads 7 3 7" in run(script(source), OMP_NUM_THREADS="7", OPENBLAS_NUM_THREADS="3").stdout
    assert "threads 5 5 5" in run("--threads-per-rank", "5", script(source), OMP_NUM_THREADS="7").stdout


def test_one_rank_is_like_python(script):
    path = script("print('argv', sys.argv[1:], sys.stdin.read())")
    done = subprocess.run(command(path, "-n", "9"), capture_output=True, text=True, timeout=LIMIT, env=environment(), input="typed")
    assert done.returncode == 0 and "argv ['-n', '9'] typed\n" in done.stdout and "[rank" not in done.stdout


@BOTH
def test_streams_stay_apart_and_lines_whole(script, backend):
    source = "[print('out', rank, i, 'x' * 3000) for i in range(50)]\n[print('err', rank, i, file=sys.stderr) for i in range(5)]"
    done = run("-q", "-n", "2", "--backend", backend, script(source))
    for rank in range(2):
        expected = [f"[rank {rank}] out {rank} {i} {'x' * 3000}" for i in range(50)]
        assert [line for line in done.stdout.splitlines() if line.startswith(f"[rank {rank}] out")] == expected
        assert [line for line in done.stderr.splitlines() if line.startswith(f"[rank {rank}] err")] == [f"[rank {rank}] err {rank} {i}" for i in range(5)]
    assert len(done.stdout.splitlines()) == 102 and len(done.stderr.splitlines()) == 10


@BOTH
def test_an_exception_is_shown_once_and_last(script, backend):
    path = script("if rank == 1:\n    raise ValueError('the cause')\ntime.sleep(60)")
    began = time.monotonic()
    done = run("-n", "2", "--backend", backend, path)
    assert done.returncode == 1 and time.monotonic() - began < 20
    assert re.fullmatch(r"\[dtrain\] rank 1 \(\S+, pid \d+\) raised ValueError: the cause; the job ended after .* s with exit code 1", last_line(done))
    lines = done.stderr.strip().splitlines()
    assert lines[-2] == "ValueError: the cause" and done.stderr.count("Traceback") == 1
    assert lines[1] == "Traceback (most recent call last):" and len(lines) == 6, done.stderr  # nothing of mpirun's


@BOTH
def test_an_exit_code_is_the_job_s(script, backend):
    done = run("-n", "2", "--backend", backend, script("if rank == 0:\n    sys.exit(7)\ntime.sleep(60)"))
    assert done.returncode == 7 and "rank 0 " in last_line(done) and "exited with code 7" in last_line(done)


def test_a_rank_that_fails_runs_its_exit_handlers_but_not_for_ever(script, tmp_path):
    source = "import atexit\n@atexit.register\ndef leave():\n    time.sleep(0.15)\n    open(sys.argv[1], 'w').close()\n    time.sleep(60)\n"
    began = time.monotonic()
    done = run("-n", "2", "--backend", "local", script(source + "if rank == 0:\n    raise ValueError\ntime.sleep(60)"), str(tmp_path / "left"))
    assert done.returncode == 1 and (tmp_path / "left").exists() and time.monotonic() - began < 10


def test_os_exit_without_cleanup(script):
    done = run("-n", "2", script("if rank == 1:\n    os._exit(9)\ntime.sleep(60)"))
    assert done.returncode == 9 and "rank 1 " in last_line(done) and "exited with code 9" in last_line(done)


def test_a_crash_shows_the_python_line(script):
    done = run("-n", "2", "--backend", "local", script("import ctypes\nif rank == 1:\n    ctypes.string_at(0)\ntime.sleep(60)"))
    assert done.returncode == 139 and "rank 1 " in last_line(done) and "signal 11 (SIGSEGV)" in last_line(done)
    assert "train.py\", line 6 in <module>" in done.stderr


def test_an_echo_is_not_the_cause(script):
    source = "class PeerLost(Exception): pass\nif rank == 0:\n    raise PeerLost('rank 1 is gone')\ntime.sleep(0.3)\nraise KeyError('the cause')"
    done = run("-n", "2", "--backend", "local", script(source))
    assert "rank 1 " in last_line(done) and "KeyError: 'the cause'" in last_line(done)
    assert "besides, rank 0 " in done.stderr


@BOTH
def test_kill_9_names_rank_and_signal_and_leaves_nothing(script, backend):
    path = script("print('up', rank, os.getpid(), flush=True)\ntime.sleep(60)")
    for victim in (1, 0, 1):
        job = subprocess.Popen(command("-q", "-n", "2", "--backend", backend, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        try:
            pids, seen = read_pids(job, 2)
            os.kill(pids[victim], signal.SIGKILL)
            _, err = job.communicate(timeout=LIMIT)
        finally:
            job.kill()
        assert job.returncode == 137
        assert re.match(rf"\[dtrain\] rank {victim} \(\S+, pid {pids[victim]}\) was killed by signal 9 \(SIGKILL\)", err.strip().splitlines()[-1])
        assert_nothing_left(seen)


def read_pids(job, count: int) -> tuple[dict[int, int], str]:
    """The process ids that ranks print as ``up RANK PID``, and all that was read till then."""
    pids, seen = {}, ""
    while len(pids) < count:
        line = job.stdout.readline()
        assert line, job.stderr.read()
        seen += line
        found = re.search(r"up (\d+) (\d+)", line)
        if found:
            pids[int(found[1])] = int(found[2])
    return pids, seen


@BOTH
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_all_ranks(script, backend, number, code):
    # A grandchild in a session of its own, as a loader worker or a tensorboard might be.
    path = script("import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\nprint('up', rank, os.getpid(), flush=True)\ntime.sleep(60)")
    job = subprocess.Popen(command("-q", "-n", "2", "--backend", backend, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        _, seen = read_pids(job, 2)
        job.send_signal(number)
        _, err = job.communicate(timeout=LIMIT)
    finally:
        job.kill()
    assert job.returncode == code
    assert err == f"[dtrain] stopped by {number.name}; all 2 ranks have ended\n"
    assert_nothing_left(seen)


def test_ranks_that_save_on_sigterm_are_given_the_time(script, tmp_path):
    source = """
import signal
def save(*_):
    time.sleep(0.5)
    open(f"{sys.argv[1]}/saved{rank}", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('up', rank, os.getpid(), flush=True)
time.sleep(60)
"""
    job = subprocess.Popen(command("-q", "-n", "2", script(source), str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    read_pids(job, 2)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=LIMIT)
    assert (job.returncode, err) == (0, "[dtrain] stopped by SIGTERM; all 2 ranks have ended well\n")
    assert (tmp_path / "saved0").exists() and (tmp_path / "saved1").exists()


def test_ranks_that_ignore_sigterm_are_killed_after_the_grace(script):
    path = script("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', rank, os.getpid(), flush=True)\ntime.sleep(60)")
    job = subprocess.Popen(command("-q", "-n", "2", "--grace", "0.5", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    pids, _ = read_pids(job, 2)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=20)
    assert job.returncode == 143 and not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())


def test_slurm_s_warning_signal_reaches_the_ranks(script):
    source = "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: (os.write(1, b'warned %d\\n' % rank), sys.exit(0)))\nprint('up', rank, os.getpid(), flush=True)\ntime.sleep(60)"
    job = subprocess.Popen(command("-q", "-n", "2", script(source)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    read_pids(job, 2)
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 0 and "warned 0" in out and "warned 1" in out


@BOTH
def test_a_killed_launcher_takes_its_ranks_along(script, backend):
    path = script("import subprocess\nsubprocess.Popen(['sleep', '60'])\nprint('up', rank, os.getpid())\ntime.sleep(60)")
    job = subprocess.Popen(command("-q", "-n", "2", "--backend", backend, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    _, seen = read_pids(job, 2)
    job.kill()
    job.wait()
    run_id = re.search(r"job (\S+)", seen)[1]
    end = time.monotonic() + 10
    while processes_of(run_id) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_of(run_id) == []


def test_the_process_above_a_rank_killed(script):
    path = script("print('up', rank, os.getpid(), flush=True)\ntime.sleep(60)")
    job = subprocess.Popen(command("-q", "-n", "2", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    pids, seen = read_pids(job, 2)
    parent = int(Path(f"/proc/{pids[1]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    _, err = job.communicate(timeout=LIMIT)
    assert job.returncode == 137 and re.search(r"rank 1 \(\S+, pid \d+\) was killed by signal 9 \(SIGKILL\)", err.strip().splitlines()[-1])
    assert_nothing_left(seen)


def test_mpi_s_own_abort(script):
    source = "from mpi4py import MPI\nMPI.COMM_WORLD.Barrier()\nif rank == 1:\n    MPI.COMM_WORLD.Abort(6)\ntime.sleep(60)"
    done = run("-n", "2", script(source))
    assert done.returncode == 6 and "rank 1 " in last_line(done)


def test_a_rank_that_leaves_its_peers_in_a_collective(script):
    """Python's own exit would call MPI_Finalize, which waits for rank 0, which waits for rank 1."""
    source = "from mpi4py import MPI\nif rank == 1:\n    sys.exit(4)\nMPI.COMM_WORLD.Barrier()"
    done = run("-n", "2", script(source))
    assert done.returncode == 4 and "rank 1 " in last_line(done)


def test_one_script_under_python_mpirun_and_dtrain_run(tmp_path):
    path = tmp_path / "who.py"
    path.write_text("from dtrain import env\nw = env.resolve()\nprint('who', w.rank, w.size, w.local_rank, w.local_size, w.source)\n")
    mpirun = [os.path.join(os.path.dirname(sys.executable), "mpirun"), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
    found = {}
    for name, line in (("python", []), ("mpirun", mpirun), ("dtrain", None)):
        full = command("-n", "2", "--no-prefix", str(path)) if line is None else [*line, sys.executable, str(path)]
        done = subprocess.run(full, capture_output=True, text=True, timeout=LIMIT, env=environment())
        found[name] = sorted(line for line in done.stdout.splitlines() if line.startswith("who"))
    assert found["python"] == ["who 0 1 0 1 single process"]
    assert found["mpirun"] == ["who 0 2 0 2 OMPI", "who 1 2 1 2 OMPI"]
    assert found["dtrain"] == ["who 0 2 0 2 RANK", "who 1 2 1 2 RANK"]


def test_log_files(script, tmp_path):
    logs = tmp_path / "logs"
    path = script("print('out', rank)\nprint('err', rank, file=sys.stderr)\nif rank == 1:\n    raise ValueError('x')\ntime.sleep(60)")
    done = run("-n", "2", "--backend", "local", "--log-dir", str(logs), "--redirects", "1:3", "--tee", "0:1", path)
    folder = next(logs.iterdir())
    assert "out 0\n" in (folder / "rank0/stdout.log").read_text() and not (folder / "rank0/stderr.log").exists()
    assert (folder / "rank1/stderr.log").read_text() == "err 1\n" and "out 1\n" in (folder / "rank1/stdout.log").read_text()
    assert "[rank 0] out 0\n" in done.stdout and "out 1" not in done.stdout and "err 1" not in done.stderr
    error = json.loads((folder / "rank1/error.json").read_text())
    assert (error["rank"], error["type"], error["message"]) == (1, "ValueError", "x")


def test_only_some_ranks_are_shown(script):
    done = run("-q", "-n", "2", "--backend", "local", "--local-ranks-filter", "1", script("print('out', rank)"))
    assert "[rank 1] out 1\n" in done.stdout and "out 0" not in done.stdout


def test_modules_and_programs(tmp_path, script):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").write_text("import os, sys\nprint('module', __name__, os.environ['RANK'], sys.argv[1:])\n")
    line = command("-q", "-n", "2", "--backend", "local", "-m", "pkg.train", "--x")
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, env=environment(), cwd=tmp_path)
    assert sorted(done.stdout.splitlines()) == [f"[rank {rank}] module __main__ {rank} ['--x']" for rank in range(2)], done.stderr
    done = run("-q", "-n", "2", "--no-python", "sh", "-c", "echo program $RANK of $WORLD_SIZE")
    assert sorted(done.stdout.splitlines()) == [f"[rank {rank}] program {rank} of 2" for rank in range(2)], done.stderr


def test_rank_0_sees_a_terminal_where_the_launcher_has_one(script):
    path = script("print('tty', rank, sys.stdout.isatty(), os.get_terminal_size(1).columns if rank == 0 else '')")
    screen, terminal = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    line = command("-q", "-n", "2", "--backend", "local", path)
    job = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment())
    job.wait(LIMIT)
    text = os.read(screen, 1 << 16).decode()
    os.close(screen)
    os.close(terminal)
    assert "tty 0 True 99" in text and "tty 1 False" in text


def test_a_reader_that_goes_away_ends_the_job(script):
    path = script("while True:\n    print('y' * 100)")
    line = " ".join(command("-q", "-n", "2", "--backend", "local", path))
    done = subprocess.run(f"{line} | head -1; echo ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=LIMIT, env=environment())
    assert done.stdout.splitlines()[-1] == "141"
    assert_nothing_left(done.stdout)


def test_mpirun_s_own_words_are_shown_where_no_rank_explains_the_end(script, tmp_path):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\n[ $1 = --version ] && echo 'mpirun (Open MPI) 5.0.1' && exit\necho 'not enough slots' >&2\nexit 5\n")
    mpirun.chmod(0o755)
    done = run("-q", "-n", "2", script(""), DTRAIN_MPIRUN=str(mpirun))
    assert done.returncode == 5
    assert done.stderr == "[mpirun] not enough slots\n[dtrain] mpirun exited with code 5; no rank reported a failure of its own\n"
