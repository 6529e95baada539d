"""These are tests of the stand-in; where a real GPU took its place there is nothing to collect (``--stand-in`` brings it back)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import standin


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_test = collection_path.parent == Path(__file__).parent and collection_path.name.startswith("test_")
    return True if is_test and not isinstance(sys.modules.get("cupy"), standin.Module) else None


@pytest.fixture
def cp() -> Any:
    """The stand-in as tests and dtrain import it."""
    return sys.modules["cupy"]
