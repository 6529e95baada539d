"""The same loss curve however the job is started and on however many ranks, at the same global batch.

    python tests/reliability/same_curve.py [--steps 50] [--tiny]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gpt_runs import LAUNCH, TINY, losses, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tiny", action="store_true", help="a small model, to see the trial work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        curves = {}
        for i, way in enumerate(LAUNCH):
            out = Path(folder, str(i))
            train(way, out, "--steps", str(args.steps), *(TINY if args.tiny else []))
            curves[way] = losses(out)
    reference = curves["python"]
    print(f"python: {reference[0]:.6f} at step 1 to {reference[-1]:.6f} at step {len(reference)}")
    worst = 0.0
    for way, curve in curves.items():
        difference = max(abs(a - b) / b for a, b in zip(curve, reference, strict=True))
        worst = max(worst, difference)
        print(f"{way:28} largest relative difference {difference:.1e}")
    raise SystemExit(worst >= 1e-5)


if __name__ == "__main__":
    main()
