"""Run by test_workers in a process of its own: `python loader_child.py CASE`."""

import os
import signal
import sys
import time

import numpy as np

from dtrain.data import DataLoader, Dataset, get_worker_info


class Rows(Dataset):
    def __getitem__(self, i):
        if i == 900:
            raise LookupError("row 900")
        return np.full((50, 50), i, np.float32), i, os.getpid()

    def __len__(self):
        return 1000


class Oops(Exception):
    pass


class Failing(Dataset):
    def __getitem__(self, i):
        raise Oops("in a class of the script")

    def __len__(self):
        return 1


def init(worker):
    assert get_worker_info().id == worker


def start_method(method):
    loader = DataLoader(Rows(), 8, num_workers=2, multiprocessing_context=method, worker_init_fn=init)
    rows, pids = [], set()
    try:
        for x, y, p in loader:
            assert (x.numpy() == y.numpy().reshape(-1, 1, 1)).all()
            rows += y.tolist()
            pids |= set(p.tolist())
    except LookupError as e:
        assert "row 900" in str(e)
    assert rows == list(range(896)) and len(pids) == 2 and os.getpid() not in pids
    try:
        list(DataLoader(Failing(), num_workers=1, multiprocessing_context=method))
    except Oops as e:
        print("ok", "in a class of the script" in str(e))


def leave(persistent):
    """End with an iterator alive; prints the workers' pids."""
    global kept
    loader = DataLoader(Rows(), 8, num_workers=2, persistent_workers=persistent, multiprocessing_context="fork")
    kept = iter(loader)
    pids = set()
    while len(pids) < 2:
        pids |= set(next(kept)[2].tolist())
    print(*pids, flush=True)


def main(case):
    if case in ("fork", "spawn", "forkserver"):
        start_method(case)
    elif case == "exit":
        leave(False)
    elif case == "exit persistent":
        leave(True)
    elif case == "raise":
        leave(False)
        raise RuntimeError("the script failed")
    elif case == "killed":
        leave(False)
        os.kill(os.getpid(), signal.SIGKILL)
    elif case == "interrupted":
        leave(False)
        time.sleep(60)
    elif case == "terminated":
        signal.signal(signal.SIGTERM, lambda *a: None)       # as a training script that saves at the end of the step
        leave(False)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
