"""How long a job takes that all-reduces once: ``python tests/bench/launch_time.py``.

Three ways to start the same two ranks take turns, whole commands timed from start to exit: ``dtrain run -n 2``, a bare ``mpirun -n 2``
with the transports that dtrain chooses, and a bare ``mpirun -n 2`` as it comes. Printed are medians and what dtrain adds to mpirun.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

SCRIPT = """
import numpy
from mpi4py import MPI
value = numpy.full(4, float(MPI.COMM_WORLD.rank))
MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, value)
assert value[0] == sum(range(MPI.COMM_WORLD.size))
"""
FAST = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}


def commands(ranks: int, script: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name: (command, variables beside the environment)."""
    mpirun = [os.path.join(os.path.dirname(sys.executable), "mpirun"), "-n", str(ranks), "--bind-to", "none", "--oversubscribe"]
    mpirun += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    run = [sys.executable, "-m", "dtrain", "run", "-q", "-n", str(ranks), script]
    bare = [*mpirun, sys.executable, script]
    return {"dtrain run": (run, {}), "mpirun, same transports": (bare, FAST), "mpirun, as it comes": (bare, {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", "--ranks", type=int, default=2)
    args = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OMPI_")}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH"))))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "all_reduce.py")
        with open(script, "w") as file:
            file.write(SCRIPT)
        for turn in range(args.rounds + 1):
            for name, (command, variables) in commands(args.ranks, script).items():
                began = time.perf_counter()
                subprocess.run(command, env=environ | variables, check=True)
                if turn:  # the first round fills the page cache
                    times.setdefault(name, []).append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{args.ranks} ranks, {name:<24} median {median:.3f} s   (lowest {min(times[name]):.3f}, highest {max(times[name]):.3f}, {args.rounds} runs)")
    print(f"dtrain run - mpirun with the same transports: {medians['dtrain run'] - medians['mpirun, same transports']:+.3f} s")


if __name__ == "__main__":
    main()
