"""Logging: one logger, and warnings that are said once."""

from __future__ import annotations

import logging
import warnings

logger = logging.getLogger("dtrain")
_said: set[str] = set()


def warn_once(key: str, message: str) -> None:
    """Warn with ``message`` the first time ``key`` is seen in this process."""
    if key not in _said:
        _said.add(key)
        warnings.warn(message, stacklevel=3)
