"""The random states of this rank, as a value a checkpoint holds."""

from __future__ import annotations

import random
import warnings

import numpy as np

from dtrain.backend import random as generators
from dtrain.backend import state
from dtrain.errors import CheckpointError, DeviceError


def rng_state() -> dict:
    """The states of Python's, NumPy's and this rank's dtrain generators; pass it to ``save`` in ``per_rank``."""
    generators.default_generator()                                  # the CPU's exists from now on
    own = {name: g.get_state() for name, g in state.local.rank.generators.items()}
    return {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "dtrain": own}


def restore_rng_state(saved: dict) -> None:
    """Put back what `rng_state` returned; CheckpointError if ``saved`` is something else.

    The generator of a device that is absent now is left out with a warning.
    """
    if not isinstance(saved, dict) or not {"python", "numpy", "dtrain"} <= saved.keys():
        raise CheckpointError("this is not what rng_state() returned: expected a dict with 'python', 'numpy' and 'dtrain'")
    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])
    for name, place in saved["dtrain"].items():
        try:
            generators.set_rng_state(place, name)
        except DeviceError as e:
            warnings.warn(f"the random state of {name} is not restored: {e}", stacklevel=2)
