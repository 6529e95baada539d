"""All-reduce of dtrain's node transport against MPI's own: ``mpirun -n 2 --bind-to none python tests/bench/allreduce.py``.

The two take turns on the same arrays; printed are medians of the slowest rank's time, and their ratio (below 1: dtrain is faster).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from dtrain.comm.mpi import load, mpi_group

SIZES = {"4 B": 1, "64 KiB": 2**14, "1 MiB": 2**18, "64 MiB": 2**24}      # float32 elements


def measure(group, comm, MPI, count: int, rounds: int) -> tuple[float, float]:
    """Median seconds of one all-reduce of ``count`` float32: (dtrain, MPI)."""
    ours, theirs, times = np.ones(count, np.float32), np.ones(count, np.float32), ([], [])
    calls = [lambda: group.all_reduce(ours, "max"), lambda: comm.Allreduce(MPI.IN_PLACE, theirs, MPI.MAX)]
    inner = 50 if count < 2**10 else 1
    for _ in range(rounds + 2):
        for call, log in zip(calls, times):
            comm.Barrier()
            began = time.perf_counter()
            for _ in range(inner):
                call()
            log.append((time.perf_counter() - began) / inner)
    slowest = [[max(pair) for pair in zip(*comm.allgather(log[2:]))] for log in times]
    return statistics.median(slowest[0]), statistics.median(slowest[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--messages", action="store_true", help="MPI messages, as between nodes, instead of shared memory")
    parser.add_argument("--chunk", type=int, help="bytes of a slot")
    args = parser.parse_args()
    group, MPI = mpi_group(timeout=60, shared_memory=not args.messages, chunk=args.chunk), load()
    for name, count in SIZES.items():
        ours, theirs = measure(group, MPI.COMM_WORLD, MPI, count, args.rounds)
        if group.rank == 0:
            print(f"{group.size} ranks  {name:>7}: dtrain {ours * 1e6:10.1f} us   MPI {theirs * 1e6:10.1f} us   ratio {ours / theirs:6.2f}")
    group.close()


if __name__ == "__main__":
    main()
