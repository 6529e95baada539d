"""The dtype objects: interned, picklable by name, found from anything a user writes for a dtype."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from dtrain.backend import dtypes
from dtrain.errors import DtypeError


@pytest.mark.parametrize("d", dtypes.ALL, ids=repr)
def test_pickle_copy_and_numpy_give_the_same_object(d):
    assert pickle.loads(pickle.dumps(d)) is copy.deepcopy(d) is dtypes.from_numpy(d.np) is dtypes.by_name(d.name) is d


@pytest.mark.parametrize("given, expected", [
    (float, "float64"), (int, "int64"), (bool, "bool"), (complex, "complex128"), (np.float32, "float32"),
    (np.dtype("int16"), "int16"), (np.longlong, "int64"), (ml_dtypes.bfloat16, "bfloat16"), ("uint8", "uint8"),
    (dtypes.half, "float16"), (dtypes.int, "int32"), (dtypes.float, "float32"), (dtypes.bool, "bool"),
])
def test_as_dtype(given, expected):
    assert dtypes.as_dtype(given).name == expected


@pytest.mark.parametrize("bad", [np.dtype("uint64"), np.dtype("U3"), np.dtype("O"), np.dtype(">f4")])
def test_unsupported_numpy_dtypes_are_named(bad):
    with pytest.raises(DtypeError, match=str(bad).replace("<", "").replace(">", ".")):
        dtypes.from_numpy(bad)


def test_as_dtype_names_what_it_got():
    with pytest.raises(DtypeError, match="3.5 of type float"):
        dtypes.as_dtype(3.5)
    with pytest.raises(DtypeError, match="no dtype is called 'float31'.*float32"):
        dtypes.as_dtype("float31")


def test_properties():
    assert repr(dtypes.float32) == "dtrain.float32" and dtypes.bfloat16.itemsize == 2
    assert [d.name for d in dtypes.ALL if d.is_half] == ["float16", "bfloat16"]
    assert [d.name for d in dtypes.ALL if not d.is_signed] == ["uint8", "bool"]
    assert dtypes.float64.to_complex() is dtypes.complex128 and dtypes.complex64.to_real() is dtypes.float32


def test_default_dtype_is_put_back_and_must_be_floating():
    assert dtypes.get_default_dtype() is dtypes.float32
    dtypes.set_default_dtype(dtypes.float64)
    try:
        assert dtypes.get_default_dtype() is dtypes.float64 and dtypes.finfo().dtype == "float64"
    finally:
        dtypes.set_default_dtype(dtypes.float32)
    with pytest.raises(DtypeError, match="must be floating, got dtrain.int64"):
        dtypes.set_default_dtype(dtypes.int64)


def test_limits_refuse_the_wrong_category():
    with pytest.raises(DtypeError, match="iinfo"):
        dtypes.finfo(dtypes.int8)
    with pytest.raises(DtypeError, match="finfo"):
        dtypes.iinfo(dtypes.float32)
