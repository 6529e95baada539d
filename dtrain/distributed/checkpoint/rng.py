"""The random states of this rank, as a value a checkpoint holds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from dtrain.errors import CheckpointError


def rng_state() -> dict:
    """The states of Python's, NumPy's and dtrain's default generators; pass it to ``save`` in ``per_rank``."""
    from dtrain.backend import random as generators

    return {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "dtrain": generators.get_rng_states()}


def restore_rng_state(state: dict) -> None:
    """Put back what `rng_state` returned; CheckpointError if ``state`` is something else."""
    try:
        parts: list[Any] = [state["python"], state["numpy"], state["dtrain"]]
    except (KeyError, TypeError):
        raise CheckpointError("this is not what rng_state() returned: expected a dict with 'python', 'numpy' and 'dtrain'") from None
    from dtrain.backend import random as generators

    random.setstate(parts[0])
    np.random.set_state(parts[1])
    generators.set_rng_states(parts[2])
