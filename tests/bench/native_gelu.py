"""The native CPU GELU: cost of a call, speed against NumPy's body and PyTorch, and beside a matrix product.

    python tests/bench/native_gelu.py [--threads 2]

The last line is the case where two thread pools could get in each other's way: a matrix product (OpenBLAS's threads)
and GELU (ours) in turns, against the sum of both alone. PyTorch's columns appear where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from typing import Callable

import numpy as np

from dtrain.backend import namespace, native, special, threads


def seconds(call: Callable, rounds: int = 40, inner: int = 1) -> float:
    """Median time of one ``call``."""
    times = []
    for _ in range(rounds + 3):
        began = time.perf_counter()
        for _ in range(inner):
            call()
        times.append((time.perf_counter() - began) / inner)
    return statistics.median(times[3:])


def numpy_gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + special.erf(namespace.numpy, x * x.dtype.type(0.5**0.5)))


def contestants(x: np.ndarray, grad: np.ndarray) -> dict[str, Callable]:
    calls: dict[str, Callable] = {"numpy forward": lambda: numpy_gelu(x)}
    for form in ("none", "tanh"):
        calls[f"native {form} forward"] = lambda form=form: native.gelu(x, form)
        calls[f"native {form} backward"] = lambda form=form: native.gelu_backward(grad, x, form)
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads.get_num_threads())
        tx, tg = torch.from_numpy(x), torch.from_numpy(grad)
        for form in ("none", "tanh"):
            calls[f"torch {form} forward"] = lambda form=form: torch.nn.functional.gelu(tx, approximate=form)
            calls[f"torch {form} backward"] = lambda form=form: torch.ops.aten.gelu_backward(tg, tx, approximate=form)
    return calls


def alternate(x: np.ndarray) -> None:
    a = np.random.default_rng(1).normal(size=(256, 1024)).astype(np.float32)
    b, c = a.reshape(1024, 256).copy(), np.empty((256, 256), np.float32)
    product, ours = lambda: np.matmul(a, b, out=c), lambda: native.gelu(x)
    alone = seconds(product) + seconds(ours)
    together = seconds(lambda: (product(), ours()))
    print(f"matrix product and GELU in turns: {together * 1e6:.0f} us, {together / alone:.2f} of the sum of both alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=threads.get_num_threads())
    args = parser.parse_args()
    threads.set_num_threads(args.threads)
    print(f"{native.instruction_set()}, {native.get_num_threads()} threads")
    one = np.ones(1, np.float32)
    print(f"one element: {seconds(lambda: native.gelu(one), inner=2000) * 1e9:.0f} ns a call, np.tanh {seconds(lambda: np.tanh(one), inner=2000) * 1e9:.0f} ns")
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).normal(size=1 << 20).astype(dtype)
        for name, call in contestants(x, np.ones_like(x)).items():
            print(f"{np.dtype(dtype).name}  {name:22s} {seconds(call, 15) / x.size * 1e9:6.2f} ns an element")
    alternate(np.random.default_rng(0).normal(size=1 << 17).astype(np.float32))


if __name__ == "__main__":
    main()
