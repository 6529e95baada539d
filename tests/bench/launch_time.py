"""How long a job takes that all-reduces once: ``python tests/bench/launch_time.py``.

Whole commands are timed from start to exit and take turns: ``dtrain run -n 2`` of a script that uses ``dtrain.distributed``; and, of one
that uses mpi4py alone, ``dtrain run -n 2``, a bare ``mpirun -n 2`` with the transports that dtrain chooses, and a bare ``mpirun -n 2`` as it
comes. Printed are medians and what the launcher adds to mpirun.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

OURS = """
import dtrain
import dtrain.distributed as dist
dist.init_process_group()
value = dtrain.ones(4)
dist.all_reduce(value)
assert value[0] == dist.get_world_size()
"""
PLAIN = """
import numpy
from mpi4py import MPI
value = numpy.full(4, float(MPI.COMM_WORLD.rank))
MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, value)
assert value[0] == sum(range(MPI.COMM_WORLD.size))
"""
FAST = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}


def commands(ranks: int, ours: str, plain: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name: (command, variables beside the environment)."""
    mpirun = [os.path.join(os.path.dirname(sys.executable), "mpirun"), "-n", str(ranks), "--bind-to", "none", "--oversubscribe"]
    mpirun += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    run = [sys.executable, "-m", "dtrain", "run", "-q", "-n", str(ranks)]
    bare = [*mpirun, sys.executable, plain]
    return {
        "dtrain run, dtrain.distributed": ([*run, ours], {}),
        "dtrain run, mpi4py": ([*run, plain], {}),
        "mpirun, mpi4py, same transports": (bare, FAST),
        "mpirun, mpi4py, as it comes": (bare, {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-n", "--ranks", type=int, default=2)
    args = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OMPI_") and name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH"))))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = os.path.join(folder, "ours.py"), os.path.join(folder, "plain.py")
        for path, source in ((ours, OURS), (plain, PLAIN)):
            with open(path, "w") as file:
                file.write(source)
        for turn in range(args.rounds + 1):
            for name, (command, variables) in commands(args.ranks, ours, plain).items():
                began = time.perf_counter()
                subprocess.run(command, env=environ | variables, check=True)
                if turn:  # the first round fills the page cache
                    times.setdefault(name, []).append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{args.ranks} ranks, {name:<32} median {median:.3f} s   (lowest {min(times[name]):.3f}, highest {max(times[name]):.3f}, {args.rounds} runs)")
    added = medians["dtrain run, mpi4py"] - medians["mpirun, mpi4py, same transports"]
    print(f"what the launcher adds to mpirun with the same transports: {added:+.3f} s")


if __name__ == "__main__":
    main()
