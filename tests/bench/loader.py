"""Milliseconds a batch of dtrain's DataLoader and PyTorch's, and a checkpoint's save and load.

    python tests/bench/loader.py             # PyTorch's column needs the [parity] extra

The loaders take turns on the same samples (64 arrays of 64 x 64 float32 a batch, made by np.full), one thread a process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from statistics import median

import numpy as np

import dtrain.data
from dtrain.distributed.checkpoint import load, save

BATCHES, BATCH, ROUNDS = 40, 64, 5


class Samples:
    """What both libraries take as a map-style dataset."""

    def __getitem__(self, i: int) -> np.ndarray:
        return np.full((64, 64), i, np.float32)

    def __len__(self) -> int:
        return BATCHES * BATCH


def milliseconds(loader: Iterable) -> float:
    began = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - began) / BATCHES * 1000


def loaders() -> None:
    libraries = {"dtrain": dtrain.data}
    try:
        import torch
        import torch.utils.data
    except ImportError:
        print("no PyTorch here to compare with")
    else:
        torch.set_num_threads(1)
        libraries["torch"] = torch.utils.data
    for workers in (0, 1, 2):
        options = {"persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
        made = {name: data.DataLoader(Samples(), BATCH, num_workers=workers, **options) for name, data in libraries.items()}
        times: dict[str, list[float]] = {name: [] for name in made}
        for round_ in range(ROUNDS + 1):
            for name, loader in made.items():
                taken = milliseconds(loader)
                if round_:                                  # the first starts the workers
                    times[name].append(taken)
        figures = {name: median(values) for name, values in times.items()}
        ratio = f"  ratio {figures['dtrain'] / figures['torch']:.2f}" if "torch" in figures else ""
        print(f"{workers} workers: " + "  ".join(f"{n} {v:.2f} ms/batch" for n, v in figures.items()) + ratio)


def checkpoints() -> None:
    state = {"model": {f"layer{i}": np.random.rand(1 << 20).astype(np.float32) for i in range(64)}}
    times: dict[str, list[float]] = {"save": [], "load": [], "load unverified": []}
    with tempfile.TemporaryDirectory() as folder:
        actions = [lambda: save(state, folder, 1), lambda: load(folder), lambda: load(folder, verify=False)]
        for _ in range(ROUNDS):
            for action, log in zip(actions, times.values()):
                began = time.perf_counter()
                action()
                log.append(time.perf_counter() - began)
    print("256 MiB checkpoint: " + "  ".join(f"{name} {median(log):.3f} s" for name, log in times.items()))


if __name__ == "__main__":
    loaders()
    checkpoints()
