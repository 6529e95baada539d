"""These are tests of the stand-in; where a real GPU took its place there is nothing to collect (``--stand-in`` brings it back)."""

import sys

import pytest

from tests import standin

collect_ignore_glob = [] if isinstance(sys.modules.get("cupy"), standin.Module) else ["test_*.py"]


@pytest.fixture
def cp():
    """The stand-in as tests and dtrain import it."""
    return sys.modules["cupy"]
