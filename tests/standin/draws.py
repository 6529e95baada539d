"""cupy.random: enough to make test data; the numbers are NumPy's, not cuRAND's."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.standin.array import from_host
from tests.standin.surface import has


class _Draws:
    """NumPy's generator with results on the current device."""

    def __init__(self, source: Any, path: str) -> None:
        self._source, self._path = source, path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not has(self._path, name) or not hasattr(self._source, name):
            raise AttributeError(f"{self._path} has no attribute {name!r}")
        draw = getattr(self._source, name)
        return lambda *args, **kwargs: from_host(draw(*args, **kwargs))


def default_rng(seed: Any = None) -> _Draws:
    return _Draws(np.random.default_rng(seed), "cupy.random.Generator")


def RandomState(seed: Any = None) -> _Draws:
    return _Draws(np.random.RandomState(seed), "cupy.random.RandomState")


CONTENTS = {"default_rng": default_rng, "RandomState": RandomState}
