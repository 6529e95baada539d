"""A small state, and ranks as threads that only know how to gather objects."""

import threading
from collections import OrderedDict

import ml_dtypes
import numpy as np


class Ranks:
    """What the checkpoint code asks of a group: ``rank``, ``size`` and ``all_gather_object``."""

    def __init__(self, rank, size, barrier, slots):
        self.rank, self.size, self._barrier, self._slots = rank, size, barrier, slots

    def all_gather_object(self, value):
        self._slots[self.rank] = value
        self._barrier.wait(20)
        gathered = list(self._slots)
        self._barrier.wait(20)
        return gathered


def on_ranks(size, work):
    """Run ``work(group)`` on ``size`` threads; returns each rank's result or the exception it raised."""
    barrier, slots, results = threading.Barrier(size), [None] * size, [None] * size

    def run(rank):
        try:
            results[rank] = work(Ranks(rank, size, barrier, slots))
        except Exception as e:
            results[rank] = e

    threads = [threading.Thread(target=run, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    return results


def small_state(seed=0):
    """A model, an optimizer and odds and ends, under 1 kB."""
    rng = np.random.default_rng(seed)
    return {
        "model": OrderedDict(w=rng.normal(size=(3, 4)).astype("f4"), b=rng.normal(size=5).astype(ml_dtypes.bfloat16)),
        "optimizer": {"state": {0: {"step": 7, "m": rng.normal(size=(3, 4))}}, "lr": 0.1},
        "loader": {"epoch": 3, "step": seed},
    }


def same(a, b):
    """Whether two states have equal values of equal types, bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b
