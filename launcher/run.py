"""``dtrain run``: from the command line to an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dtrain.errors import ConfigError, LaunchError
from dtrain.launcher import plan
from dtrain.launcher.mpi import find_mpi
from dtrain.launcher.options import parse
from dtrain.launcher.spec import here


def main(argv: Sequence[str]) -> int:
    """Run the job that ``argv`` asks for; 2 for a command that cannot be run, else the exit code of the root cause."""
    try:
        site = here(dict(os.environ), sys.executable)
        spec = parse(argv, site)
        mpi = find_mpi(site.environ, site.executable) if spec.backend == "mpi" else None
        if not spec.quiet:
            print(f"[dtrain] {plan.describe(spec, mpi)}", file=sys.stderr, flush=True)
        from dtrain.launcher.job import Job  # a command line that is refused needs no processes

        return Job(spec, site, mpi).run()
    except (ConfigError, LaunchError) as error:
        print(f"dtrain run: error: {error}", file=sys.stderr)
        return 2
