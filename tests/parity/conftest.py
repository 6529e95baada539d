"""These tests compare with PyTorch, the oracle of the `[parity]` extra: `python -m pytest tests/parity -m parity`.

They are left out of a plain `python -m pytest`; where PyTorch is not installed there is nothing to collect.
"""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.parity)
