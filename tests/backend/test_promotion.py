"""promote_arrays: what is cast, what passes through untouched, and what wraps."""

import numpy as np
import pytest

from dtrain.backend import dtypes, promotion
from dtrain.errors import ArgumentError

F32, F64, I8, U8 = (np.ones(3, t) for t in (np.float32, np.float64, np.int8, np.uint8))
BF16 = F32.astype(dtypes.bfloat16.np)


@pytest.mark.parametrize("arrays", [[F32, F32], [F32, 2, None], [BF16, 2.5], [F32, True], [F32]])
def test_nothing_to_do_returns_the_list_itself(arrays):
    assert promotion.promote_arrays(np, arrays) is arrays


@pytest.mark.parametrize("arrays, expected", [
    ([F32, F64], "float64"), ([F32, F64.sum()], "float32"), ([I8, 2.5], "float32"), ([I8, U8], "int16"),
    ([BF16, F32.astype(np.float16)], "float32"), ([F32, 2j], "complex64"), ([F64, 2j], "complex128"), ([I8, 300], "int8"),
])
def test_arrays_are_cast(arrays, expected):
    out = promotion.promote_arrays(np, arrays)
    assert {a.dtype.name for a in out if hasattr(a, "dtype")} == {expected}
    assert promotion.result_type(*arrays).name == expected


@pytest.mark.parametrize("array, scalar, expected", [(I8, 300, 44), (U8, -1, 255), (I8, 128, -128), (I8, -5, -5)])
def test_integer_scalars_wrap(array, scalar, expected):
    assert promotion.promote_arrays(np, [array, scalar])[1] == expected


def test_integer_scalar_beyond_64_bits():
    with pytest.raises(ArgumentError, match="does not fit in 64 bits"):
        promotion.promote_arrays(np, [I8, 1 << 70])


def test_scalars_alone_become_arrays_of_the_default_dtype():
    a, b = promotion.promote_arrays(np, [1, 2.5])
    assert a.dtype == b.dtype == np.float32 and a.shape == ()


def test_default_dtype_decides_for_scalars():
    dtypes.set_default_dtype(dtypes.float64)
    try:
        assert promotion.promote_arrays(np, [I8, 2.5])[0].dtype == np.float64
    finally:
        dtypes.set_default_dtype(dtypes.float32)
    assert promotion.promote_arrays(np, [I8, 2.5])[0].dtype == np.float32
