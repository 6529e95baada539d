"""Raw arrays of random numbers from a Generator, on its device; on the CPU they are PyTorch's for the same seed.

Every function takes ``generator`` last; None means the rank's default CPU generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dtrain.backend import dtypes
from dtrain.backend.dtypes import dtype as Dtype
from dtrain.backend.generator import resolve
from dtrain.backend.mt19937 import multiply_add
from dtrain.errors import ArgumentError, DtypeError, ShapeError

_RANDPERM_32BIT = 0xFFFFFFFF // 20              # from this length on PyTorch draws 64 bits a step


def uniform(shape: Any, dtype: Dtype, low: float = 0.0, high: float = 1.0, generator: Any = None) -> Any:
    """Numbers of [low, high) in a floating or complex dtype (then both parts are drawn)."""
    shape, n = _shape(shape)
    _check_floating("uniform", dtype)
    if not low <= high:
        raise ArgumentError(f"uniform needs low <= high, got low={low}, high={high}")
    if dtype.is_complex:
        return _complex(uniform((*shape, 2), dtype.to_real(), low, high, generator), dtype)
    with _drawing(generator) as source:
        out = source.uniform64(n) if dtype is dtypes.float64 else source.uniform32(n)
        if (low, high) == (0, 1) and not dtype.is_half:
            return out.reshape(shape)
        real = out.dtype.type
        out = _scaled(source, out, real(high) - real(low), low).astype(dtype.np, copy=False)
        if low < high:
            out[out == dtype.np.type(high)] = dtype.np.type(low)     # rounding reached the excluded end
        return out.reshape(shape)


def normal(shape: Any, dtype: Dtype, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Any:
    """Normal numbers in a floating or complex dtype (then the parts share the variance, and each has the mean)."""
    shape, n = _shape(shape)
    _check_floating("normal", dtype)
    if not std >= 0:
        raise ArgumentError(f"normal needs std >= 0, got {std}")
    if dtype.is_complex:
        return _complex(normal((*shape, 2), dtype.to_real(), mean, std / math.sqrt(2), generator), dtype)
    work = np.dtype(np.float64 if dtype is dtypes.float64 else np.float32)
    with _drawing(generator) as source:
        return source.normals(n, work, float(mean), float(std), dtype.is_half).astype(dtype.np, copy=False).reshape(shape)


def randint(low: int, high: int, shape: Any, dtype: Dtype = dtypes.int64, generator: Any = None) -> Any:
    """Integers of [low, high) in any real dtype."""
    shape, n = _shape(shape)
    low, high = int(low), int(high)
    if low >= high:
        raise ArgumentError(f"randint needs low < high, got low={low}, high={high}")
    _check_bounds(low, high - 1, dtype)
    with _drawing(generator) as source:
        out = _below(source, n, high - low).astype(np.int64)
        if high - low < 1 << 64:                                 # all 64-bit integers need no shift
            out += low
        return out.astype(dtype.np, copy=False).reshape(shape)


def _below(source: Any, n: int, span: int) -> Any:
    """``n`` integers of [0, span), with PyTorch's choice of how many bits to draw for one."""
    if span == 1 << 64:
        return source.bits64(n)
    return source.bits64(n) % np.uint64(span) if span >= 1 << 28 else source.bits32(n) % np.uint32(span)


def random_integers(shape: Any, dtype: Dtype = dtypes.int64, generator: Any = None) -> Any:
    """What ``Tensor.random_()`` draws: [0, max] of an integer dtype, [0, 2^mantissa bits] of a floating one."""
    shape, n = _shape(shape)
    if dtype.is_floating_point:
        top = round(2 / dtypes.finfo(dtype).eps)
    else:
        top = _integer_limits(dtype)[1]
    with _drawing(generator) as source:
        if dtype in (dtypes.int64, dtypes.float64):
            bits = source.bits64(n) % np.uint64(top + 1)
        else:
            bits = source.bits32(n) % np.uint32(top + 1)
        return bits.astype(dtype.np).reshape(shape)


def randperm(n: int, dtype: Dtype = dtypes.int64, generator: Any = None) -> Any:
    """The numbers 0 to n-1 in random order."""
    if n < 0:
        raise ArgumentError(f"randperm needs n >= 0, got {n}")
    _check_bounds(0, max(n - 1, 0), dtype)
    with _drawing(generator) as source:
        if source.xp is not np:
            return source.xp.argsort(source.bits64(n)).astype(dtype.np)
        shuffle = _shuffled if n < _RANDPERM_32BIT else _shuffled_inside_out
        return np.array(shuffle(source, n), dtype.np)


def _shuffled(source: Any, n: int) -> list[int]:
    """0 to n-1, each place from the front swapped with a later one (Fisher and Yates)."""
    order, swaps = list(range(n)), max(n - 1, 0)
    targets = source.bits32(swaps) % np.arange(n, n - swaps, -1, dtype=np.uint32) + np.arange(swaps, dtype=np.uint32)
    for i, j in enumerate(targets.tolist()):
        order[i], order[j] = order[j], order[i]
    return order


def _shuffled_inside_out(source: Any, n: int) -> list[int]:
    """0 to n-1, each number put in a place so far and what stood there moved to the end; 64 bits a step."""
    order = [0] * n
    for i, bits in enumerate(source.bits64(n)):
        j = int(bits) % (i + 1)
        order[i], order[j] = order[j], i
    return order


def bernoulli(p: Any, generator: Any = None, shape: Any = None) -> Any:
    """A bool array, True with probability ``p``: a number (with ``shape``) or a floating array."""
    with _drawing(generator) as source:
        if shape is not None:
            if not 0 <= p <= 1:
                raise ArgumentError(f"bernoulli needs a probability of [0, 1], got {p}")
            shape, n = _shape(shape)
            return (source.uniform64(n) < p).reshape(shape)
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise ArgumentError("bernoulli needs probabilities of [0, 1]; some are outside or NaN")
        draw = source.uniform64 if p.dtype == np.float64 else source.uniform32
        return draw(p.size).reshape(p.shape) < (p if p.itemsize > 2 else p.astype(np.float32))


def exponential(shape: Any, dtype: Dtype, rate: float = 1.0, generator: Any = None) -> Any:
    """Exponentially distributed numbers of mean 1 / rate in a floating dtype."""
    shape, n = _shape(shape)
    if not rate > 0:
        raise ArgumentError(f"exponential needs a rate above 0, got {rate}")
    if not dtype.is_floating_point:
        raise DtypeError(f"exponential draws floating numbers, got dtype {dtype}")
    with _drawing(generator) as source:
        return (-1.0 / rate * source.xp.log1p(-source.uniform64(n))).astype(dtype.np).reshape(shape)


def multinomial(weights: Any, num_samples: int, replacement: bool = False, generator: Any = None) -> Any:
    """Column numbers (int64, shape (..., num_samples)) drawn in proportion to ``weights``, (classes,) or (rows, classes)."""
    with _drawing(generator) as source:
        weights = _checked_weights(source.xp, weights, num_samples, replacement)
        if replacement and num_samples > 1:
            return _search(source, weights, num_samples)
        race = weights / exponential(weights.shape, dtypes.from_numpy(weights.dtype), 1.0, generator)
        return source.xp.argsort(-race, axis=-1)[..., :num_samples].astype(np.int64)


def _checked_weights(xp: Any, weights: Any, num_samples: int, replacement: bool) -> Any:
    classes = weights.shape[-1] if weights.ndim else 0
    if weights.ndim not in (1, 2) or not classes or weights.dtype.kind not in "fV":
        raise ShapeError(f"multinomial takes floating weights of shape (classes,) or (rows, classes), got {weights.dtype} {weights.shape}")
    if num_samples < 1 or num_samples > classes and not replacement:
        raise ArgumentError(f"multinomial cannot draw {num_samples} of {classes} classes; draw 1 to {classes}, or use replacement=True")
    weights = weights.astype(np.float32) if weights.itemsize == 2 else weights
    if not bool((xp.isfinite(weights) & (weights >= 0)).all()) or not bool((weights.sum(axis=-1) > 0).all()):
        raise ArgumentError("multinomial weights must be finite and not negative, with a sum above 0 in every row")
    return weights


def _search(source: Any, weights: Any, num_samples: int) -> Any:
    """Draws with replacement: uniforms looked up in the rows' cumulative weights."""
    xp, shape = source.xp, (*weights.shape[:-1], num_samples)
    edges = xp.cumsum(weights.reshape(-1, weights.shape[-1]), axis=-1)
    edges = (edges / edges[:, -1:]).astype(np.float64)
    draws = source.uniform64(math.prod(shape)).reshape(-1, num_samples)
    return xp.stack([xp.searchsorted(row, u) for row, u in zip(edges, draws)]).astype(np.int64).reshape(shape)


@contextmanager
def _drawing(generator: Any) -> Iterator[Any]:
    """The generator's source of numbers, with its device current while they are drawn."""
    generator = resolve(generator)
    if generator.device.type == "cpu":
        yield generator.source
    else:
        from dtrain.backend import cuda

        with cuda.on(generator.device.index):
            yield generator.source


def _shape(shape: Any) -> tuple[tuple[int, ...], int]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(n < 0 for n in shape):
        raise ShapeError(f"a shape has no negative sizes, got {shape}")
    return shape, math.prod(shape)


def _check_floating(what: str, dtype: Dtype) -> None:
    if not (dtype.is_floating_point or dtype.is_complex):
        raise DtypeError(f"{what} draws floating numbers, got dtype {dtype}; use randint for integers")


def _scaled(source: Any, z: Any, scale: Any, shift: float) -> Any:
    if source.xp is np:
        return multiply_add(z, scale, shift)
    return z * scale + z.dtype.type(shift)


def _complex(parts: Any, dtype: Dtype) -> Any:
    return parts.view(dtype.np).reshape(parts.shape[:-1])


def _check_bounds(low: int, last: int, dtype: Dtype) -> None:
    if dtype.is_complex:
        raise DtypeError(f"integers are drawn in a real dtype, not {dtype}")
    largest = dtypes.finfo(dtype).max if dtype.is_floating_point else 0
    smallest, largest = (-largest, largest) if dtype.is_floating_point else _integer_limits(dtype)
    if low < smallest or last > largest:
        raise ArgumentError(f"{dtype} holds {smallest} to {largest}, not {low} to {last}")


def _integer_limits(dtype: Dtype) -> tuple[int, int]:
    if dtype is dtypes.bool_:
        return 0, 1
    limits = dtypes.iinfo(dtype)
    return limits.min, limits.max
