"""PyTorch's CPU generator: the same numbers for the same seed.

The bits are those of the Mersenne Twister (Matsumoto and Nishimura, 1998), which NumPy's frozen RandomState makes in bulk
from the same seeding. How PyTorch turns bits into numbers was read off its results, and the parity tests hold us to it:

- float32: the low 24 bits of one word; float64: the low 53 of two words, the first being the high half; the half types
  take a float32 and round it;
- normal, fewer than 16 numbers: one pair at a time in float64, the second of a pair kept for the next call;
- normal, 16 and more: blocks of 16 uniforms, the first 8 giving radii and the last 8 angles; a size that is no
  multiple of 16 has its last 16 numbers drawn afresh;
- a product followed by a sum is rounded once (fused), in float32 and float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dtrain.errors import ArgumentError

STATE_BYTES = 5056                              # the layout of torch.get_rng_state() on the CPU
_CHUNK = 1 << 15                                # numbers at a time, so that the working arrays stay in cache
_MASK53 = np.uint64((1 << 53) - 1)


class MT19937:
    """The bit stream, the uniforms and normals made of it, and its place as bytes."""

    xp = np

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(seed & 0xFFFFFFFF)
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start again from ``seed``, of which 32 bits count, as in PyTorch."""
        self.initial_seed = seed
        self._bits.seed(seed & 0xFFFFFFFF)
        self._fresh, self._next_normal = True, None

    def bits32(self, n: int) -> np.ndarray:
        """``n`` uint32."""
        if n:
            self._fresh = False
        return self._bits.randint(0, 1 << 32, size=n, dtype=np.uint32)

    def bits64(self, n: int) -> np.ndarray:
        """``n`` uint64 of two words each, high half first."""
        pairs = self.bits32(2 * n).reshape(n, 2)
        return np.ascontiguousarray(pairs[:, ::-1]).view("<u8").reshape(n)

    def uniform32(self, n: int) -> np.ndarray:
        """``n`` float32 of [0, 1)."""
        out = np.empty(n, np.float32)
        for part in _chunks(out):
            bits = self.bits32(part.size)
            bits &= np.uint32(0xFFFFFF)
            np.multiply(bits.view(np.int32), np.float32(2.0**-24), out=part, dtype=np.float32, casting="unsafe")
        return out

    def uniform64(self, n: int) -> np.ndarray:
        """``n`` float64 of [0, 1)."""
        out = np.empty(n, np.float64)
        for part in _chunks(out):
            bits = self.bits64(part.size)
            bits &= _MASK53
            np.multiply(bits.view(np.int64), 2.0**-53, out=part, casting="unsafe")
        return out

    def normals(self, n: int, dtype: np.dtype, mean: float, std: float, for_half: bool = False) -> np.ndarray:
        """``n`` normal numbers in ``dtype``, float32 or float64; ``for_half``: they will be rounded to a half type."""
        if n < 16:
            return np.array([self._one_normal(mean, std) for _ in range(n)], dtype)
        out = np.empty(n, dtype)
        whole = out[:n - n % 16]
        for part in _chunks(whole):
            self._fill_blocks(part, mean, std)
        if n % 16:
            if not for_half:        # PyTorch draws a uniform for every number first, but for halves block by block
                self.bits32(n % 16 * (dtype.itemsize // 4))
            self._fill_blocks(out[-16:], mean, std)
        return out

    def _one_normal(self, mean: float, std: float) -> float:
        if self._next_normal is not None:
            z, self._next_normal = self._next_normal, None
        else:
            u1, u2 = self.uniform64(2).tolist()
            radius, angle = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
            z, self._next_normal = radius * math.cos(angle), radius * math.sin(angle)
        return float(multiply_add(np.array([z]), std, mean)[0])

    def _fill_blocks(self, out: np.ndarray, mean: float, std: float) -> None:
        """Fill ``out``, a multiple of 16 numbers, by Box and Muller's method."""
        real = out.dtype.type
        blocks = (self.uniform32 if real is np.float32 else self.uniform64)(out.size)
        radius, angle = _halves(blocks, 0), _halves(blocks, 1)
        np.subtract(real(1), radius, out=radius)
        np.log(radius, out=radius)
        radius *= real(-2)
        np.sqrt(radius, out=radius)
        angle *= real(2.0 * math.pi)
        for half, wave in enumerate((np.cos, np.sin)):
            z = wave(angle)
            z *= radius
            _octets(out).reshape(-1, 2)[:, half] = _octets(multiply_add(z, std, mean))

    def get_state(self) -> np.ndarray:
        """The generator's place as STATE_BYTES bytes, PyTorch's own layout."""
        _, key, position, _, _ = self._bits.get_state(legacy=True)
        header = np.array([self.initial_seed], "<u8").tobytes()
        header += np.array([625 - position, 1], "<i4").tobytes()
        header += np.array([0 if self._fresh else position], "<u8").tobytes()
        tail = np.array([0.0, self._next_normal or 0.0, 0.0], "<f8").tobytes()
        tail += np.array([self._next_normal is not None, 0, 0, 0], "<i4").tobytes()
        return np.frombuffer(header + key.astype("<u8").tobytes() + tail, np.uint8).copy()

    def set_state(self, state: np.ndarray) -> None:
        """Go to the place ``get_state`` (ours or PyTorch's) wrote down."""
        raw = state.tobytes()
        left, seeded = np.frombuffer(raw, "<i4", 2, 8)
        key = np.frombuffer(raw, "<u8", 624, 24)
        if len(raw) != STATE_BYTES or not seeded or not 1 <= left <= 624 or (key >> np.uint64(32)).any():
            raise ArgumentError("these bytes are no state of a CPU generator; pass what get_state() or get_rng_state() returned")
        self.initial_seed = int(np.frombuffer(raw, "<u8", 1, 0)[0])
        self._fresh = int(np.frombuffer(raw, "<u8", 1, 16)[0]) == 0
        self._bits.set_state(("MT19937", key.astype(np.uint32), 625 - int(left)))
        valid = np.frombuffer(raw, "<i4", 1, 5040)[0]
        self._next_normal = float(np.frombuffer(raw, "<f8", 1, 5024)[0]) if valid else None


def multiply_add(z: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """``z * scale + shift`` in the dtype of ``z`` (float32 or float64), rounded once as a fused multiply-add rounds."""
    real = z.dtype.type
    scale, shift = real(scale), real(shift)
    if shift == 0:
        return z if scale == 1 else z * scale
    if real is np.float32:
        return (z.astype(np.float64) * float(scale) + float(shift)).astype(np.float32)
    product, error = _exact_product(z, scale)
    total = product + shift
    back = total - product
    return total + ((product - (total - back)) + (shift - back) + error)


def _exact_product(a: np.ndarray, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """``a * b`` and its rounding error, both float64 (Dekker 1971)."""
    a_high, b_high = (x * 134217729.0 - (x * 134217729.0 - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    product = a * b
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _chunks(out: np.ndarray) -> list[np.ndarray]:
    return [out[i:i + _CHUNK] for i in range(0, out.size, _CHUNK)]


def _octets(values: np.ndarray) -> np.ndarray:
    """``values`` as items of eight numbers, so that halves of blocks are copied whole and not number by number."""
    return values.view(f"V{8 * values.itemsize}")


def _halves(blocks: np.ndarray, half: int) -> np.ndarray:
    """The first or second eight numbers of every block of 16, contiguous."""
    return np.ascontiguousarray(_octets(blocks).reshape(-1, 2)[:, half]).view(blocks.dtype)
