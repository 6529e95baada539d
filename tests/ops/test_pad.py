"""Padding."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops.pad import pad
from tests.ops.util import check_grad, normal, to_numpy

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
CASES = [((3, 4, 5), (1, 2)), ((3, 4, 5), (1, 0, 2, 3)), ((2, 3, 4, 4), (2, 1, 0, 1)), ((3, 4), ()), ((4, 5), (-1, 2, 1, -2)), ((5,), (-2, -1))]


def expected(x, pads, mode, **kwargs):
    pairs = [(0, 0)] * (x.ndim - len(pads) // 2) + [tuple(pads[i : i + 2]) for i in range(0, len(pads), 2)][::-1]
    x = x[tuple(slice(max(-b, 0), n + min(a, 0)) for n, (b, a) in zip(x.shape, pairs))]
    return np.pad(x, [(max(b, 0), max(a, 0)) for b, a in pairs], MODES[mode], **kwargs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape, pads", CASES)
def test_pad(device, shape, pads, mode):
    x = normal(*shape)
    np.testing.assert_array_equal(to_numpy(pad(dtrain.tensor(x, device=device), pads, mode)), expected(x, pads, mode))
    check_grad(lambda t: pad(t, pads, mode), x, device=device)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.bool_])
def test_a_value_in_every_dtype(device, dtype):
    x = (normal(2, 3) > 0).astype(dtype)
    np.testing.assert_array_equal(to_numpy(pad(dtrain.tensor(x, device=device), (1, 1), value=1)), expected(x, (1, 1), "constant", constant_values=1))


@pytest.mark.parametrize(
    "pads, mode, value, error, text",
    [
        ((1,), "constant", None, ShapeError, "pairs"),
        ((1,) * 6, "constant", None, ShapeError, "at most 2 dims"),
        ((1, 1), "mirror", None, ArgumentError, "one of constant, reflect"),
        ((1, 1), "reflect", 3.0, ArgumentError, "belongs to mode 'constant'"),
        ((3, 0), "reflect", None, ShapeError, "at most 2 elements"),
        ((0, 4), "circular", None, ShapeError, "at most 3 elements"),
        ((-2, -2), "constant", None, ShapeError, "leave -1"),
        ((-2, -1), "replicate", None, ShapeError, "leave 0"),
    ],
)
def test_misuse_is_explained(pads, mode, value, error, text):
    with pytest.raises(error, match=text):
        pad(dtrain.ones(2, 3), pads, mode, value)
