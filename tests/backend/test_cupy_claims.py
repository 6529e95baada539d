"""What dtrain believes of CuPy. On a GPU these claims test CuPy itself, elsewhere that the stand-in keeps to them."""

import ml_dtypes
import numpy as np
import pytest

from dtrain.backend import cuda

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def cp():
    return cuda.cupy()


def halves(cp):
    return cp.asarray(np.arange(6.0).reshape(2, 3).astype(BF16))


CLAIMS = {
    "an index out of range wraps": (lambda cp: cp.arange(5)[cp.asarray([7, -6])], [2, 4]),
    "take wraps": (lambda cp: cp.take(cp.arange(5), cp.asarray([7, -6])), [2, 4]),
    "take_along_axis wraps": (lambda cp: cp.take_along_axis(cp.arange(5), cp.asarray([7]), 0), [2]),
    "adding at repeated indices adds up": (lambda cp: added(cp), [0, 2, 0]),
    "float16 sums keep counting": (lambda cp: cp.ones(5000, np.float16).sum(), 5000),
    "bfloat16 sums keep counting": (lambda cp: cp.ones(1024, BF16).sum(), 1024),
    "clip with crossed bounds gives the upper": (lambda cp: cp.clip(cp.arange(3.0), 3, 1), [1, 1, 1]),
    "argsort is stable": (lambda cp: cp.argsort(cp.asarray([1, 0, 1, 0])), [1, 3, 0, 2]),
    "astype may return itself": (lambda cp: cp.asarray(_same(cp)), True),
    "reshape of a slice is a view where it can be": (lambda cp: cp.asarray(_view(cp)), True),
}


def added(cp):
    out = cp.zeros(3)
    cp.add.at(out, cp.asarray([1, 1]), 1)
    return out


def _same(cp):
    a = cp.zeros(3, np.float32)
    return a.astype(np.float32, copy=False) is a


def _view(cp):
    a = cp.zeros((4, 6))
    return a[1:3].reshape(12).data.ptr == a.data.ptr + 48


@pytest.mark.parametrize("name", CLAIMS)
def test_values(cp, name):
    compute, expected = CLAIMS[name]
    assert compute(cp).get().astype(float).tolist() == np.asarray(expected, float).tolist()


DTYPES = {
    "bfloat16 times a float": (lambda cp: halves(cp) * 2.0, np.float32),
    "bfloat16 plus bfloat16": (lambda cp: halves(cp) + halves(cp), BF16),
    "bfloat16 selected": (lambda cp: cp.where(halves(cp) > 1, halves(cp), halves(cp)), np.float32),
    "bfloat16 triangle": (lambda cp: cp.tril(halves(cp)), np.float32),
    "bfloat16 clipped": (lambda cp: cp.clip(halves(cp), BF16.type(1), BF16.type(2)), np.float32),
    "bfloat16 product": (lambda cp: cp.matmul(halves(cp), halves(cp).T), BF16),
    "bfloat16 exponential": (lambda cp: cp.exp(halves(cp)), BF16),
    "float16 times a float": (lambda cp: cp.ones(2, np.float16) * 2.0, np.float16),
    "int8 times a float": (lambda cp: cp.ones(2, np.int8) * 1.5, np.float64),
    "sum of int32": (lambda cp: cp.ones(2, np.int32).sum(), np.int64),
    "mean of int32": (lambda cp: cp.ones(2, np.int32).mean(), np.float64),
    "sign of a boolean": (lambda cp: cp.sign(cp.ones(2, bool)), np.int8),
    "argmax": (lambda cp: cp.argmax(cp.ones(2)), np.int64),
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(cp, name):
    compute, expected = DTYPES[name]
    out = compute(cp)
    assert type(out) is cp.ndarray and out.dtype == expected


REFUSED = {
    "conversion": lambda cp: np.asarray(cp.ones(2)),
    "NumPy operand": lambda cp: cp.ones(2) + np.ones(2),
    "0-dim NumPy operand": lambda cp: cp.ones(2) * np.array(2.0),
    "list operand": lambda cp: cp.add(cp.ones(2), [1, 2]),
    "adding bfloat16 at indices": lambda cp: cp.add.at(halves(cp), cp.asarray([0]), BF16.type(1)),
    "adding int8 at indices": lambda cp: cp.add.at(cp.ones(2, np.int8), cp.asarray([0]), 1),
    "sorting bfloat16": lambda cp: cp.sort(halves(cp)),
    "stacks of bfloat16 matrices": lambda cp: cp.matmul(cp.stack([halves(cp)] * 2), cp.stack([halves(cp).T] * 2)),
    "clipping booleans from below": lambda cp: cp.clip(cp.ones(2, bool), 0, None),
    "an array as a range": lambda cp: range(cp.arange(3)[2]),
    "NumPy data into a part": lambda cp: cp.ones((2, 3)).__setitem__(0, np.ones(3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(cp, name):
    with pytest.raises(Exception):  # noqa: B017 - the kind of error is CuPy's affair
        REFUSED[name](cp)
