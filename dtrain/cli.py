"""The ``dtrain`` command: a table from subcommand to the module that does it, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import dtrain

# name: (module, what it does in one line). Each module has main(argv: list[str]) -> int.
COMMANDS = {
    "run": ("dtrain.launcher.run", "start N ranks of a script, here or on several hosts"),
    "doctor": ("dtrain.launcher.doctor", "say what is installed and what is missing, with the remedy"),
    "data": ("dtrain.data.tool", "turn text into token shards, and look into them"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code, 2 for a command that cannot be understood."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version", "version"):
        print(f"dtrain {dtrain.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"dtrain: error: unknown command {argv[0]!r}{_nearest(argv[0])}; see dtrain --help", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]) or 0


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: dtrain COMMAND ...", "", *lines, "", "dtrain COMMAND --help says more."])


def _nearest(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
