"""Every namespace function that needed help on CUDA gives NumPy's result in the input's dtype."""

import ml_dtypes
import numpy as np
import pytest

from dtrain.backend import namespace
from dtrain.backend.device import device, move
from tests.util import normal

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def xp():
    return namespace.for_device("cuda")


def gpu(array, dtype=None):
    return move(array if dtype is None else array.astype(dtype), device("cuda:0"))


CALLS = {
    "where": lambda xp, a, b: xp.where(a > 0, a, b),
    "where with a scalar": lambda xp, a, b: xp.where(a > 0, a, 0.0),
    "where with a scalar first": lambda xp, a, b: xp.where(a > 0, 1.0, b),
    "where, broadcasting": lambda xp, a, b: xp.where(a[:1] > 0, a, b[:, :1]),
    "clip": lambda xp, a, b: xp.clip(a, -0.5, 0.5),
    "clip from below": lambda xp, a, b: xp.clip(a, b, None),
    "clip from above": lambda xp, a, b: xp.clip(a, None, 0.25),
    "tril": lambda xp, a, b: xp.tril(a),
    "triu": lambda xp, a, b: xp.triu(a, 1),
    "triu of a transposed view": lambda xp, a, b: xp.triu(a.T, -1),
    "sort": lambda xp, a, b: xp.sort(a, axis=0),
    "cumsum": lambda xp, a, b: xp.cumsum(a, axis=1),
    "cumprod": lambda xp, a, b: xp.cumprod(a, axis=1),
    "partition": lambda xp, a, b: xp.sort(xp.partition(a, 2, axis=1)[:, :3], axis=1),
    "batched matmul": lambda xp, a, b: xp.matmul(xp.stack([a, b]), xp.stack([b, a])),
    "matmul": lambda xp, a, b: xp.matmul(a, b),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_dtype(xp, name, dtype):
    dtype = BF16 if dtype == "bfloat16" else np.dtype(dtype)
    a, b = normal(5, 5, seed=1).astype(dtype), normal(5, 5, seed=2).astype(dtype)
    out = CALLS[name](xp, gpu(a), gpu(b))
    expected = CALLS[name](np, a.astype(np.float32), b.astype(np.float32))
    assert out.dtype == dtype
    tolerance = {2: 2e-2 if dtype == BF16 else 2e-3, 4: 1e-6}[dtype.itemsize]
    np.testing.assert_allclose(out.get().astype(np.float32), expected, rtol=tolerance, atol=tolerance)


def test_where_moves_bits_unchanged(xp):
    a = np.array([np.nan, np.inf, -0.0, 1e-38], BF16)
    out = xp.where(gpu(np.array([True, True, True, True])), gpu(a), gpu(a[::-1].copy())).get()
    np.testing.assert_array_equal(out.view(np.uint16), a.view(np.uint16))


@pytest.mark.parametrize("low, high, expected", [(1, None, [1, 1]), (None, 0, [0, 0]), (0.5, None, [0.5, 1]), (False, True, [0, 1])])
def test_clip_of_booleans(xp, low, high, expected):
    out = xp.clip(gpu(np.array([False, True])), low, high)
    assert out.dtype == np.clip(np.array([False, True]), low, high).dtype and out.get().tolist() == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8", "int16", "uint8", "int32", "int64", "bool"])
def test_scatter_add_in_every_dtype(xp, dtype):
    dtype = BF16 if dtype == "bfloat16" else np.dtype(dtype)
    start, index, values = np.arange(4), np.array([0, 2, 2, 3, 0]), np.array([1, 1, 3, 0, 1])
    expected = start.astype(np.float64)
    np.add.at(expected, index, values)
    target = gpu(start, dtype)
    same = target
    xp.scatter_add(target, gpu(index), gpu(values, dtype))
    assert target is same and target.dtype == dtype
    assert target.get().tolist() == expected.astype(dtype).tolist()


def test_argsort_and_searchsorted_take_bfloat16(xp):
    a = np.array([3.0, -1.0, 2.0, 0.5], BF16)
    assert xp.argsort(gpu(a)).get().tolist() == [1, 3, 2, 0]
    assert xp.searchsorted(gpu(np.sort(a.astype(np.float32)), BF16), gpu(a)).get().tolist() == [3, 0, 2, 1]
