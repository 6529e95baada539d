"""``kill -9`` of one rank, again and again: ``python tests/reliability/kill_rank.py [--trials 20] [--backend mpi|local]``.

Each trial starts two ranks that all-reduce in a loop (with ``--backend local``: that wait), kills one of them at a random moment, and asks: did
the job end within 2 seconds, was the killed rank and its signal named in the last line, was the exit code 137, and is no process and no file of the
job left? Printed are how many of the trials passed, and the times. The exit code is 0 if all did.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2.0
HEAD = "import os, time\nprint('up', os.environ['DTRAIN_RUN_ID'], os.environ['RANK'], os.getpid(), flush=True)\n"
LOOPS = {
    "mpi": "import numpy\nfrom mpi4py import MPI\nx = numpy.ones(1000)\nMPI.COMM_WORLD.Barrier()\n" + HEAD + "while True:\n    MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, x)\n    x[:] = 1\n",
    "local": HEAD + "time.sleep(60)\n",
}


def trial(backend: str, script: str, ranks: int) -> tuple[float, list[str]]:
    """(seconds from the kill to the launcher's end, what was wrong)."""
    sys.path.insert(0, str(ROOT))
    command = [sys.executable, "-m", "dtrain", "run", "-q", "-n", str(ranks), "--backend", backend, script]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    pids, run_id = {}, ""
    while len(pids) < ranks:
        line = job.stdout.readline()
        if not line:
            return 0.0, [f"the job did not start: {job.stderr.read()}"]
        if found := re.search(r"up (\S+) (\d+) (\d+)", line):
            run_id, pids[int(found[2])] = found[1], int(found[3])
    time.sleep(random.uniform(0, 0.3))
    victim = random.randrange(ranks)
    began = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    try:
        _, err = job.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        job.kill()
        return 30.0, ["the job did not end"]
    seconds = time.monotonic() - began
    return seconds, judge(seconds, job.returncode, err, victim, pids, run_id)


def judge(seconds: float, code: int, err: str, victim: int, pids: dict[int, int], run_id: str) -> list[str]:
    """What a trial got wrong."""
    from dtrain.launcher.sweep import processes_of

    last = err.strip().splitlines()[-1] if err.strip() else ""
    checks = {
        f"it took {seconds:.2f} s": seconds < LIMIT,
        f"exit code {code}": code == 137,
        f"the last line is {last!r}": re.search(rf"rank {victim} \(\S+, pid {pids[victim]}\) was killed by signal 9 \(SIGKILL\)", last) is not None,
        "processes are left": not processes_of(run_id) and not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()),
        "files are left": not [name for folder in ("/tmp", "/dev/shm") for name in os.listdir(folder) if run_id in name],
    }
    return [what for what, well in checks.items() if not well]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--backend", choices=("mpi", "local"), default="mpi")
    parser.add_argument("-n", "--ranks", type=int, default=2)
    args = parser.parse_args()
    times, passed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "loop.py")
        Path(script).write_text(LOOPS[args.backend])
        for number in range(1, args.trials + 1):
            seconds, wrong = trial(args.backend, script, args.ranks)
            times.append(seconds)
            passed += not wrong
            if wrong:
                print(f"trial {number}: {'; '.join(wrong)}")
    print(f"{passed} of {args.trials} trials passed, {args.ranks} ranks, {args.backend}: rank and signal named last, exit code 137, nothing left, under {LIMIT:g} s")
    print(f"seconds from kill -9 to the end of the job: median {statistics.median(times):.2f}, lowest {min(times):.2f}, highest {max(times):.2f}")
    return int(passed < args.trials)


if __name__ == "__main__":
    sys.exit(main())
