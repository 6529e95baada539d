"""PyTorch's ``torch.cuda.random``: the rank's generator of each CUDA device. Seeding does nothing where CUDA cannot be used."""

from __future__ import annotations

from typing import Any

from dtrain.backend import cuda, generator
from dtrain.backend.generator import Generator


def _generator(device: Any) -> Generator:
    return generator.default_generator(f"cuda:{cuda.index_of(device)}")


def get_rng_state(device: Any = "cuda") -> Any:
    """The place of the device's generator, for ``set_rng_state``."""
    return _generator(device).get_state()


def get_rng_state_all() -> list[Any]:
    """``get_rng_state`` of every device."""
    return [get_rng_state(index) for index in range(cuda.device_count())]


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Put the device's generator at a place from ``get_rng_state``."""
    _generator(device).set_state(new_state)


def set_rng_state_all(new_states: list[Any]) -> None:
    """``set_rng_state`` of every device, in their order."""
    for index, place in enumerate(new_states):
        set_rng_state(place, index)


def manual_seed(seed: int) -> None:
    """Seed the current device's generator."""
    if cuda.is_available():
        _generator(None).manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all devices."""
    for index in range(cuda.device_count()):
        _generator(index).manual_seed(seed)


def seed() -> None:
    """Seed the current device's generator from the system's entropy."""
    manual_seed(generator.fresh_seed())


def seed_all() -> None:
    """Seed the generators of all devices with one number from the system's entropy."""
    manual_seed_all(generator.fresh_seed())


def initial_seed() -> int:
    """The seed of the current device's generator."""
    return _generator(None).initial_seed()
