"""A full training step of a tiny MLP (8-16-1, tanh, batch 4, SGD): dtrain beside PyTorch, a step so small that only overhead counts.

    python tests/bench/tiny_mlp.py            needs the [parity] extra

The two alternate in fresh processes, one thread each; the figures are medians over the rounds, and the ratio is what counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

ROUNDS = 7
STEPS = 1500

CHILD = """
import sys, time
name, steps = sys.argv[1], int(sys.argv[2])
if name == "torch":
    import torch as m
    from torch import nn, optim
    from torch.nn import functional as F
    m.set_num_threads(1)
else:
    import dtrain as m
    from dtrain import nn, optim
    from dtrain.nn import functional as F
m.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = optim.SGD(model.parameters(), lr=0.01)
x, y = m.randn(4, 8), m.randn(4, 1)

def step():
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

times = []
for _ in range(steps // 5):
    step()
for _ in range(steps):
    began = time.perf_counter()
    step()
    times.append(time.perf_counter() - began)
times.sort()
print(times[len(times) // 2], float(step()))
"""


def run(name: str) -> tuple[float, float]:
    """Median seconds of a step, and the loss after all of them."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "DTRAIN_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", CHILD, name, str(STEPS)], env=env, capture_output=True, text=True, check=True, timeout=120)
    seconds, loss = out.stdout.split()
    return float(seconds), float(loss)


def main() -> None:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        (a, loss_a), (b, loss_b) = run("dtrain"), run("torch")
        assert abs(loss_a - loss_b) <= 1e-4 * abs(loss_b) + 1e-7, (loss_a, loss_b)  # the same training, from the same seed
        ours.append(a)
        theirs.append(b)
    ratios = sorted(a / b for a, b in zip(ours, theirs))
    print(f"dtrain {median(ours) * 1e6:.0f} us, PyTorch {median(theirs) * 1e6:.0f} us a step")
    print(f"ratio {median(ratios):.2f} (pairs {ratios[0]:.2f} to {ratios[-1]:.2f}; the budget is 0.50)")


if __name__ == "__main__":
    main()
