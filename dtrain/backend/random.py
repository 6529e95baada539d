"""The rank's random state, and every function that draws raw random arrays (see `generator` and `draws`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dtrain.backend import state
from dtrain.backend.device import device as Device
from dtrain.backend.draws import bernoulli, exponential, multinomial, normal, randint, random_integers, randperm, uniform
from dtrain.backend.generator import DEFAULT_SEED, Generator, checked_seed, default_generator, fresh_seed, resolve
from dtrain.backend.philox import keep_mask

__all__ = [
    "DEFAULT_SEED", "Generator", "bernoulli", "default_generator", "dropout_mask", "exponential", "fork_rng", "get_rng_state",
    "initial_seed", "manual_seed", "multinomial", "normal", "randint", "random_integers", "randperm", "resolve", "seed",
    "set_rng_state", "uniform",
]


def manual_seed(seed: int) -> Generator:
    """Seed the rank's generators of every device; returns the CPU one."""
    seed = checked_seed(seed)
    cpu = default_generator()
    for generator in state.local.rank.generators.values():
        generator.manual_seed(seed)
    return cpu


def seed() -> int:
    """Seed the rank's generators from the system's entropy; returns the seed."""
    return manual_seed(fresh_seed()).initial_seed()


def initial_seed() -> int:
    """The seed of the rank's CPU generator."""
    return default_generator().initial_seed()


def get_rng_state(where: Any = "cpu") -> np.ndarray:
    """The place of the rank's generator of a device (see Generator.get_state)."""
    return default_generator(where).get_state()


def set_rng_state(new_state: Any, where: Any = "cpu") -> None:
    """Put the rank's generator of a device at a place from ``get_rng_state``."""
    default_generator(where).set_state(new_state)


@contextmanager
def fork_rng(devices: Iterable[Any] | None = None, enabled: bool = True) -> Iterator[None]:
    """Put the rank's generators back afterwards: the CPU's, and those of ``devices`` (default: every CUDA one in use)."""
    if not enabled:
        yield
        return
    default_generator()
    wanted = list(state.local.rank.generators) if devices is None else ["cpu", *map(Device, devices)]
    saved = [(generator, generator.get_state()) for generator in map(default_generator, wanted)]
    try:
        yield
    finally:
        for generator, place in saved:
            generator.set_state(place)


def dropout_mask(xp: Any, shape: tuple[int, ...], p: float, generator: Generator | None = None) -> Any:
    """A bool array on ``xp``'s device, False with probability ``p``: dropout's next mask, the same on CPU and GPU."""
    chosen, start = resolve(generator).stream.take(math.prod(shape))
    return keep_mask(xp, chosen, start, shape, p)
