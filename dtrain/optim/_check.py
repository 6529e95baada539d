"""Checks that optimizers share."""

from __future__ import annotations

from typing import Any

from dtrain.errors import ArgumentError


def at_least_zero(**options: Any) -> None:
    """ArgumentError for the first option that is negative or no number."""
    for name, value in options.items():
        if not value >= 0.0:
            raise ArgumentError(f"{name} must not be negative, got {value}")


def betas(values: Any) -> tuple[float, float]:
    """Two numbers of [0, 1)."""
    if len(values) != 2:
        raise ArgumentError(f"betas are two numbers of [0, 1), got {values}")
    first, second = (float(beta) for beta in values)
    for i, beta in enumerate((first, second)):
        if not 0.0 <= beta < 1.0:
            raise ArgumentError(f"betas[{i}] must be in [0, 1), got {beta}")
    return first, second
