"""These tests compare with PyTorch, the oracle of the `[parity]` extra; where it is not installed there is nothing to collect."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]
