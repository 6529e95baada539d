"""Seconds that `import dtrain`, its first tensor, and nn with optim take beyond `import numpy`, with bytecode cached as after an install.

    python tests/bench/import_time.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

ROUNDS = 15
STATEMENTS = {
    "import dtrain": "import dtrain",
    "first tensor": "import dtrain; dtrain.tensor([1.0])",
    "nn and optim": "import dtrain; dtrain.nn.Linear; dtrain.optim.SGD",
}


def seconds(statement: str) -> float:
    """How long ``statement`` takes in a fresh process in which NumPy is imported already."""
    code = f"import time, numpy; began = time.perf_counter()\n{statement}\nprint(time.perf_counter() - began)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60).stdout)


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for statement in STATEMENTS.values():
        seconds(statement)  # writes the bytecode
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    for name, values in times.items():
        print(f"{name:14} {median(values) * 1000:6.0f} ms beyond import numpy (median of {ROUNDS}; the budget is 150 ms)")


if __name__ == "__main__":
    main()
