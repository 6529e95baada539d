"""Random numbers from counters: Philox4x32-10, the same on CPU and GPU.

The usual generator carries state from one number to the next, so a GPU cannot reproduce a CPU's numbers without running
through them in order. Here number i is a function of (seed, i) alone: a block of four 32-bit words is the counter i, a
128-bit number, put through ten rounds of multiply and xor keyed by the seed. Any part of the stream can be computed
anywhere. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

Words are counted in blocks: word w of the stream is word w % 4 of block w // 4, and every draw starts at a new block.
``xp`` is an array namespace; arrays are 1-dimensional unless a shape is given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = 0x9E3779B9, 0xBB67AE85
_LOW32, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_CHUNK = 12288                                  # blocks at a time on the CPU, so that the working arrays stay in cache


def rounds(c0: Any, c1: Any, c2: Any, c3: Any, key0: int, key1: int) -> tuple[Any, Any, Any, Any]:
    """The ten rounds on counters given as four uint64 arrays of 32-bit words; the result's words are in the low halves.

    The high half of a product meets the other lane and the key; the low half moves over as it is, its upper bits
    cut off by the mask one round later.
    """
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIER0, c2 * _MULTIPLIER1
        c0, c2 = product1 >> _32, product0 >> _32
        c0 ^= c1
        c0 ^= np.uint64(key0)
        c0 &= _LOW32
        c2 ^= c3
        c2 ^= np.uint64(key1)
        c2 &= _LOW32
        c1, c3 = product1, product0
        key0, key1 = (key0 + _WEYL0) & 0xFFFFFFFF, (key1 + _WEYL1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def blocks_for(words: int) -> int:
    """How many blocks ``words`` 32-bit words take."""
    return -(-words // 4)


def random_uint32(xp: Any, seed: int, offset: int, n: int) -> Any:
    """``n`` words of the stream ``seed`` (64 bits) from block ``offset`` on, as uint32."""
    total = blocks_for(n)
    out = xp.empty((total, 4), dtype=np.uint32)
    chunk = _CHUNK if xp.name == "numpy" else max(total, 1)
    for start in range(0, total, chunk):
        stop = min(total, start + chunk)
        counter = xp.arange(stop - start, dtype=np.uint64) + np.uint64((offset + start) & 0xFFFFFFFFFFFFFFFF)
        zero = xp.zeros(stop - start, dtype=np.uint64)
        words = rounds(counter & _LOW32, counter >> _32, zero, zero.copy(), seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        for i, word in enumerate(words):
            out[start:stop, i] = word            # the assignment keeps the low 32 bits
    return out.reshape(-1)[:n]


def random_uint64(xp: Any, seed: int, offset: int, n: int) -> Any:
    """``n`` 64-bit integers, two words each, the first word being the high half."""
    words = random_uint32(xp, seed, offset, 2 * n).astype(np.uint64)
    return (words[0::2] << _32) | words[1::2]


def uniform(xp: Any, seed: int, offset: int, n: int, dtype: Any = np.float32) -> Any:
    """``n`` numbers of [0, 1), float32 (24 random bits, one word each) or float64 (53 bits, two words each)."""
    if dtype == np.float64:
        return (random_uint64(xp, seed, offset, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (random_uint32(xp, seed, offset, n) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal(xp: Any, seed: int, offset: int, n: int, dtype: Any = np.float32) -> Any:
    """``n`` standard normal numbers by Box and Muller's method: the first half are the cosines, the second the sines."""
    half = (n + 1) // 2
    u = uniform(xp, seed, offset, 2 * half, dtype)
    radius, angle = xp.sqrt(-2.0 * xp.log(1.0 - u[:half])), (2.0 * math.pi) * u[half:]
    return xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:n]


def keep_mask(xp: Any, seed: int, offset: int, shape: tuple[int, ...], p: float) -> Any:
    """A bool array of ``shape`` that is False with probability ``p`` (dropout), the same on every device."""
    threshold = round(p * 2.0**32)
    if threshold >= 1 << 32:
        return xp.zeros(shape, dtype=bool)
    return (random_uint32(xp, seed, offset, math.prod(shape)) >= np.uint32(threshold)).reshape(shape)


class Stream:
    """A place in a stream: ``seed`` and the next unused block ``offset`` (both 64 bits)."""

    __slots__ = ("seed", "offset")

    def __init__(self, seed: int, offset: int = 0) -> None:
        self.seed, self.offset = seed, offset

    def take(self, words: int) -> tuple[int, int]:
        """(seed, offset) of the next ``words`` words, which are then used up."""
        start = self.offset
        self.offset = (start + blocks_for(words)) & 0xFFFFFFFFFFFFFFFF
        return self.seed, start

    def get_state(self) -> np.ndarray:
        """16 bytes: seed and offset, little-endian."""
        return np.array([self.seed, self.offset], "<u8").view(np.uint8)

    def set_state(self, state: np.ndarray) -> None:
        self.seed, self.offset = map(int, np.frombuffer(state.tobytes(), "<u8"))


class DeviceSource:
    """The draws of a CUDA generator: the numbers of a Stream, on the device that is current when they are drawn."""

    def __init__(self, stream: Stream, xp: Any) -> None:
        self.stream, self.xp = stream, xp

    def bits32(self, n: int) -> Any:
        return random_uint32(self.xp, *self.stream.take(n), n)

    def bits64(self, n: int) -> Any:
        return random_uint64(self.xp, *self.stream.take(2 * n), n)

    def uniform32(self, n: int) -> Any:
        return uniform(self.xp, *self.stream.take(n), n)

    def uniform64(self, n: int) -> Any:
        return uniform(self.xp, *self.stream.take(2 * n), n, np.float64)

    def normals(self, n: int, dtype: Any, mean: float, std: float, for_half: bool = False) -> Any:
        words = (n + 1) // 2 * 2 * (dtype.itemsize // 4)
        out = normal(self.xp, *self.stream.take(words), n, dtype)
        return out if (mean, std) == (0.0, 1.0) else out * dtype.type(std) + dtype.type(mean)
