"""Stop a run at many steps and resume it: the losses must go on bit for bit.

    python tests/reliability/resume.py [--steps 12] [--ranks 2] [--full]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gpt_runs import TINY, losses, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--way", default="dtrain run -n 2")
    parser.add_argument("--full", action="store_true", help="the example's own model instead of a small one")
    args = parser.parse_args()
    common = ["--steps", str(args.steps), "--dropout", "0.1", *([] if args.full else TINY)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        train(args.way, Path(folder, "whole"), *common)
        expected = losses(Path(folder, "whole"))
        for stop in range(1, args.steps):
            out = Path(folder, f"stop-{stop}")
            train(args.way, out, *common, "--stop-after", str(stop))
            train(args.way, out, *common, "--resume")
            same = losses(out) == expected
            wrong += not same
            print(f"stopped after step {stop:3}: {'the same bits' if same else 'DIFFERENT'}", flush=True)
    print(f"{args.steps - 1 - wrong} of {args.steps - 1} continued bit for bit")
    raise SystemExit(wrong != 0)


if __name__ == "__main__":
    main()
