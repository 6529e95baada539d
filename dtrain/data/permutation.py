"""A pseudo-random permutation of range(n) whose values are computed one by one, without a table.

A Feistel network with addition modulo a permutes the a*a pairs of digits, a being the smallest number whose square holds
range(n); the rare value outside range(n) is sent through again until it falls inside ("cycle walking"). Both after Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002. The round function is the finalizer of splitmix64 (Steele,
Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
"""

from __future__ import annotations

import math

import numpy as np

from dtrain.errors import ArgumentError, IndexRangeError

ROUNDS = 8
SMALLEST_BASE = 8                        # with fewer digits the network does not reach all orders alike
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer, elementwise on uint64: a bijection that scatters every input bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def round_keys(*words: int) -> np.ndarray:
    """uint64 keys, one a round, from any integers (seed, epoch, ...); order and value of each word matter."""
    state = np.zeros(1, np.uint64)
    for word in words:
        for part in (word & _MASK, (word >> 64) & _MASK):
            state = mix(state + np.uint64(_GOLDEN) ^ np.array([part], np.uint64))
    return mix(state + np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(_GOLDEN))


def permute(positions: np.ndarray, n: int, *key: int) -> np.ndarray:
    """The values at ``positions`` (integers in [0, n)) of the permutation of range(n) chosen by ``key``; int64, same shape."""
    if n < 1:
        raise ArgumentError(f"a permutation needs at least one element, got n={n}")
    x = np.array(positions, np.int64)
    if x.size and not 0 <= x.min() <= x.max() < n:
        raise IndexRangeError(f"positions must lie in [0, {n}), got {x.min()} to {x.max()}")
    shape, x = x.shape, x.ravel().astype(np.uint64)
    base = np.uint64(max(SMALLEST_BASE, math.isqrt(n - 1) + 1))
    keys = round_keys(*key)
    outside = np.arange(x.size)
    while outside.size:
        x[outside] = _feistel(x[outside], base, keys)
        outside = outside[x[outside] >= np.uint64(n)]
    return x.astype(np.int64).reshape(shape)


def _feistel(x: np.ndarray, base: np.uint64, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(x, base)
    for key in keys:
        left, right = right, (left + mix(right ^ key) % base) % base
    return left * base + right
