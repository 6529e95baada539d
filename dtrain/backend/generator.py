"""The Generator class and the rank's default generators.

A CPU generator gives PyTorch's own numbers for the same seed (`mt19937`); a CUDA generator counts through Philox
(`philox`). Dropout draws from a Philox stream kept inside the CPU generator, so that masks are the same on every
device. The default generators belong to the rank (`state`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dtrain.backend import namespace, state
from dtrain.backend.device import resolve as resolve_device
from dtrain.backend.mt19937 import STATE_BYTES, MT19937
from dtrain.backend.philox import DeviceSource, Stream
from dtrain.errors import ArgumentError, DeviceError

DEFAULT_SEED = 67280421310721                   # that of a Generator nobody seeded, as in PyTorch


class Generator:
    """A source of random numbers on ``device``: PyTorch's ``Generator``, whose numbers it reproduces on the CPU.

    ``source`` makes the raw numbers; ``stream`` is the Philox stream: dropout's on the CPU, everything's on CUDA.
    """

    __slots__ = ("device", "stream", "source")

    def __init__(self, device: Any = "cpu") -> None:
        self.device = resolve_device(device)
        if self.device.type == "meta":
            raise DeviceError("meta tensors hold no numbers, so they have no generator; use 'cpu' or 'cuda'")
        self.stream = Stream(DEFAULT_SEED)
        if self.device.type == "cpu":
            self.source: Any = MT19937(DEFAULT_SEED)
        else:
            self.source = DeviceSource(self.stream, namespace.for_device("cuda"))

    def manual_seed(self, seed: int) -> Generator:
        """Start from ``seed``, an integer of [-2^63, 2^64); negative ones count from 2^64. Returns the generator."""
        seed = checked_seed(seed)
        self.stream.seed, self.stream.offset = seed, 0
        if self.device.type == "cpu":
            self.source.seed(seed)
        return self

    def seed(self) -> int:
        """Start from a seed of the system's entropy, which is returned."""
        self.manual_seed(fresh_seed())
        return self.initial_seed()

    def initial_seed(self) -> int:
        """The seed it started from."""
        return self.stream.seed if self.device.type != "cpu" else self.source.initial_seed

    def get_state(self) -> np.ndarray:
        """Its place as uint8: on the CPU PyTorch's 5056 bytes and 16 for the dropout stream; on CUDA 16 bytes."""
        own = self.stream.get_state()
        return own if self.device.type != "cpu" else np.concatenate([self.source.get_state(), own])

    def set_state(self, new: Any) -> Generator:
        """Go to a place from ``get_state`` (a CPU generator also takes PyTorch's 5056 bytes). Returns the generator."""
        new = np.ascontiguousarray(new)
        sizes = (STATE_BYTES, STATE_BYTES + 16) if self.device.type == "cpu" else (16,)
        if new.dtype != np.uint8 or new.shape not in [(n,) for n in sizes]:
            raise ArgumentError(f"the state of a {self.device.type} generator is {sizes[-1]} bytes (uint8), got {new.dtype} of shape {new.shape}")
        if self.device.type == "cpu":
            self.source.set_state(new[:STATE_BYTES])
            self.stream.seed, self.stream.offset = self.source.initial_seed, 0
        if new.size != STATE_BYTES:
            self.stream.set_state(new[-16:])
        return self

    def clone_state(self) -> Generator:
        """A generator at the same place."""
        return Generator(self.device).set_state(self.get_state())

    def __reduce__(self) -> Any:
        return _restore, (str(self.device), self.get_state())

    def __repr__(self) -> str:
        return f"<Generator on {self.device}, seed {self.initial_seed()}>"


def _restore(device: str, saved: np.ndarray) -> Generator:
    return Generator(device).set_state(saved)


def checked_seed(seed: Any) -> int:
    """``seed`` as an integer of [0, 2^64)."""
    try:
        number = int(seed)
    except (TypeError, ValueError):
        raise ArgumentError(f"a seed is an integer, got {seed!r}") from None
    if not -(1 << 63) <= number < 1 << 64:
        raise ArgumentError(f"a seed is an integer of [-2^63, 2^64), got {number}")
    return number & 0xFFFFFFFFFFFFFFFF


def fresh_seed() -> int:
    """A seed of the system's entropy: 53 bits, so that a float64 holds it."""
    return int.from_bytes(os.urandom(8), "little") >> 11


def default_generator(where: Any = "cpu") -> Generator:
    """The rank's generator of a device. The CPU's first seed is random; a CUDA one starts from the CPU one's seed."""
    generators = state.local.rank.generators
    if where == "cpu" or (found := resolve_device(where)).type == "cpu":
        if "cpu" not in generators:
            generators["cpu"] = Generator().manual_seed(fresh_seed())
        return generators["cpu"]
    name = str(found)
    if name not in generators:
        generators[name] = Generator(found).manual_seed(default_generator().initial_seed())
    return generators[name]


def resolve(generator: Generator | None, where: Any = "cpu") -> Generator:
    """``generator``, or the default one of the device when it is None."""
    if generator is None:
        return default_generator(where)
    if not isinstance(generator, Generator):
        raise ArgumentError(f"generator must be a dtrain.Generator or None, got {type(generator).__name__}")
    return generator
