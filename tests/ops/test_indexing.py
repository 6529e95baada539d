"""Reading and writing at indices: values against NumPy, gradients to second order, on every device."""

import numpy as np
import pytest

import dtrain
from dtrain import logs
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tests.ops.util import check_grad, normal, to_numpy

I = np.array([2, 0, 2])
J = np.array([[1, 0], [3, 1]])
M = np.array([[True, False, True, False], [False, False, True, True], [True, True, False, True]])

# keys of a (3, 4, 2) tensor that mean the same to NumPy
KEYS = {
    "int": 1,
    "negative int": -1,
    "all ints": (1, 2, 0),
    "slice": slice(1, None),
    "steps": (slice(None, None, 2), slice(1, 4, 2)),
    "backwards": (slice(None, None, -1), slice(3, 0, -2)),
    "beyond the end": slice(1, 99),
    "empty": slice(2, 1),
    "none": (None, 0, None),
    "ellipsis": (..., 1),
    "ellipsis in between": (0, ..., None, 1),
    "empty ellipsis": (0, 1, ..., 1),
    "list": [0, 2],
    "empty list": [],
    "index": I,
    "negative index": -I - 1,
    "2-D index": (slice(None), J),
    "two indices": (I, np.array([0, 3, 3])),
    "broadcast indices": (np.array([[0], [2]]), np.array([1, 3, 0])),
    "indices apart": (I, slice(None), np.array([0, 1, 1])),
    "index behind a slice": (slice(1), I, slice(None, None, -1)),
    "mask": M,
    "mask of rows": np.array([True, False, True]),
    "mask of columns": (slice(None), np.array([True, False, True, True])),
    "mask and slice": (M, slice(1, None)),
    "empty mask": np.zeros((3, 4), bool),
    "true": True,
    "numpy integers": (np.int64(1), np.int32(2)),
}
CASES = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


def on(device: str, key):
    """The key with tensors of the device for its arrays."""
    if isinstance(key, tuple):
        return tuple(on(device, k) for k in key)
    return dtrain.tensor(key, device=device) if isinstance(key, np.ndarray) else key


@CASES
def test_read(key, device):
    x = normal(3, 4, 2)
    np.testing.assert_array_equal(to_numpy(dtrain.tensor(x, device=device)[on(device, key)]), x[key])
    check_grad(lambda x: x[on(device, key)], x, device=device)


@CASES
def test_read_with_numpy_arrays_as_indices(key, device):
    x = normal(3, 4, 2)
    np.testing.assert_array_equal(to_numpy(dtrain.tensor(x, device=device)[key]), x[key])


def write(x, key, value):
    out = x * 1
    out[key] = value
    return out * out


DISTINCT = {name: key for name, key in KEYS.items() if name not in ("index", "negative index", "two indices", "indices apart", "index behind a slice", "2-D index")}


@pytest.mark.parametrize("key", DISTINCT.values(), ids=DISTINCT)
@pytest.mark.parametrize("spread", ["full", "row", "number", "extra dims"])
def test_write(key, spread, device):
    x = normal(3, 4, 2)
    shape = x[key].shape
    value = normal(*{"full": shape, "row": shape[-1:], "number": (), "extra dims": (1, 1, *shape)}[spread], seed=1)
    expected = x.copy()
    expected[key] = value.reshape(shape) if spread == "extra dims" else value
    y = dtrain.tensor(x, device=device)
    y[on(device, key)] = dtrain.tensor(value, device=device)
    np.testing.assert_array_equal(to_numpy(y), expected)
    check_grad(lambda x, v: write(x, on(device, key), v), x, np.asarray(value), device=device)


@pytest.mark.parametrize("key", [1, (..., 0), I, M])
def test_write_of_python_numbers_and_arrays(key, device):
    x = normal(3, 4, 2)
    for value in (2, 0.5, np.float32(3), normal(*x[key].shape), x[key].tolist()):
        y, expected = dtrain.tensor(x, device=device), x.copy()
        y[on(device, key)] = value
        expected[key] = value
        np.testing.assert_allclose(to_numpy(y), expected)


def test_an_integer_beside_an_index_keeps_its_place(device):
    """NumPy moves the index's dims to the front; PyTorch does not."""
    x = normal(3, 4, 5)
    found = dtrain.tensor(x, device=device)[:, on(device, I), None, 1]
    np.testing.assert_array_equal(to_numpy(found), x[:, :, 1][:, I][:, :, None])
    check_grad(lambda x: x[:, on(device, I), None, 1], x, device=device)


def test_an_empty_ellipsis_parts_nothing(device):
    x = normal(2, 3, 4)
    found = dtrain.tensor(x, device=device)[:, on(device, np.array([0, 1])), ..., on(device, np.array([3, 2]))]
    np.testing.assert_array_equal(to_numpy(found), x[:, [0, 1], [3, 2]])


def test_uint8_is_a_mask(monkeypatch):
    monkeypatch.setattr(logs, "_said", set())
    with pytest.warns(UserWarning, match="uint8 means a mask"):
        assert dtrain.tensor([5, 6, 7])[dtrain.tensor([1, 0, 1], dtype=dtrain.uint8)].tolist() == [5, 7]


def test_a_0_dim_tensor_is_an_integer(device):
    x = dtrain.tensor([5, 6, 7], device=device)
    at = dtrain.tensor(1, device=device)
    assert x[at].item() == 6 and x[at:].tolist() == [6, 7] and x[:at].tolist() == [5] and x[at].ndim == 0


def test_a_read_by_slices_shares_memory_and_one_by_tensors_does_not(device):
    x = dtrain.zeros(3, 4, device=device)
    x[1].fill_(5)
    x[dtrain.tensor([0], device=device)].fill_(7)
    assert x.tolist() == [[0] * 4, [5] * 4, [0] * 4]


def test_repeated_indices(device):
    """Reading adds the gradients up; writing keeps one value, adding all."""
    x = dtrain.zeros(3, device=device, dtype=dtrain.float64, requires_grad=True)
    at = dtrain.tensor([1, 1, 1], device=device)
    (x[at] * dtrain.tensor([1.0, 2, 4], device=device)).sum().backward()
    assert x.grad.tolist() == [0, 7, 0]
    values = dtrain.tensor([1.0, 2, 4], device=device, dtype=dtrain.float64)
    assert x.detach().index_put((at,), values, accumulate=True).tolist() == [0, 7, 0]
    assert x.detach().index_add(0, at, values, alpha=2).tolist() == [0, 14, 0]


@pytest.mark.parametrize("function, shapes", [
    (lambda d, x, v: x.index_put((on(d, I), on(d, np.array([0, 1, 3]))), v), [(3, 4), (3,)]),
    (lambda d, x, v: x.index_put((on(d, I),), v, accumulate=True), [(3, 4), (3, 4)]),
    (lambda d, x, v: x.index_put((on(d, M),), v), [(3, 4), (7,)]),
    (lambda d, x, v: x.index_add(1, on(d, I), v, alpha=0.5), [(2, 4), (2, 3)]),
    (lambda d, x, v: x.index_select(-1, on(d, I)) * v, [(2, 4), (3,)]),
    (lambda d, x, v: x.gather(1, on(d, J)) + v, [(2, 4), (2, 2)]),
    (lambda d, x, v: x.scatter(1, on(d, np.array([[1], [3]])), v), [(2, 4), (2, 3)]),
    (lambda d, x, v: x.scatter_add(0, on(d, J % 3), v), [(3, 4), (2, 2)]),
    (lambda d, x, v: x.masked_fill(on(d, M), v.sum()), [(3, 4), (2,)]),
    (lambda d, x, v: x.masked_select(on(d, M)) * v, [(3, 4), (1,)]),
    (lambda d, x, v: dtrain.take_along_dim(x, on(d, J[:1]), 1) + v, [(3, 4), (3, 2)]),
    (lambda d, x, v: x.repeat_interleave(on(d, np.array([0, 2, 1])), 0) + v, [(3, 4), (4,)]),
])  # fmt: skip
def test_gradients_of_functions(function, shapes, device):
    check_grad(lambda x, v: function(device, x, v), *[normal(*s, seed=i) for i, s in enumerate(shapes)], device=device)


L = dtrain.tensor
MISUSE = [
    (lambda x: x[3], IndexRangeError, "index 3 is out of bounds for axis 0 with size 3"),
    (lambda x: x[0, 0, 0], IndexRangeError, r"slice cannot take \(\(3, 4\) float32\)"),
    (lambda x: x[L([0, 9])], IndexRangeError, r"index for dim 0 is 9 at position \(1,\), outside the range -3 to 2"),
    (lambda x: x[:, L([0, -5])], IndexRangeError, r"index for dim 1 is -5 at position \(1,\), outside the range -4 to 3"),
    (lambda x: x[L([0]), L([0]), L([0])], IndexRangeError, r"too many indices for a tensor of shape \(3, 4\)"),
    (lambda x: x[L([0, 1]), L([0, 1, 2])], IndexRangeError, "take cannot take"),
    (lambda x: x[1.0], IndexRangeError, "cannot index a tensor with float 1.0; expected int, slice, None"),
    (lambda x: x["a"], IndexRangeError, "cannot index a tensor with str 'a'"),
    (lambda x: x[L([0.5])], DtypeError, "index tensors must be integer or bool, got dtrain.float32"),
    (lambda x: x[L([True, False])], ShapeError, r"mask of shape \(2,\) does not fit shape \(3, 4\) at dim 0"),
    (lambda x: x.__setitem__(slice(2), dtrain.ones(3)), ShapeError, r"source of shape \(3,\) does not broadcast to \(2, 4\)"),
    (lambda x: x.__setitem__(L([0, 1]), dtrain.ones(3)), ShapeError, r"put cannot take \(\(3, 4\) float32, \(3,\) float32"),
    (lambda x: x.__setitem__(L([7]), 1.0), IndexRangeError, "index for dim 0 is 7"),
    (lambda x: x.gather(1, L([[4]])), IndexRangeError, r"gather index for dim 1 is 4 at position \(0, 0\), outside the range 0 to 3"),
    (lambda x: x.gather(1, L([[-1]])), IndexRangeError, "gather index for dim 1 is -1"),
    (lambda x: x.gather(1, L([[0.0]])), DtypeError, "gather expects an integer index, got dtrain.float32"),
    (lambda x: x.gather(1, L([0])), ShapeError, r"gather expects an index with 2 dims like input \(3, 4\), got shape \(1,\)"),
    (lambda x: x.scatter(1, L([[0, 1]]), dtrain.ones(1, 1)), ShapeError, r"an index of shape \(1, 2\) does not fit .* src \(1, 1\)"),
    (lambda x: x.scatter(1, L([[0]] * 4), 1.0), ShapeError, r"an index of shape \(4, 1\) does not fit input \(3, 4\)"),
    (lambda x: x.scatter(1, L([[0]]), L([[1]])), DtypeError, "scatter expects values of dtrain.float32 like its input, got dtrain.int64"),
    (lambda x: x.scatter(1, L([[0]])), ArgumentError, "src .* or value"),
    (lambda x: x.index_select(0, L([[0]])), IndexRangeError, r"index_select expects a 1-D integer index, got shape \(1, 1\)"),
    (lambda x: x.index_select(0, L([3])), IndexRangeError, "index_select index for dim 0 is 3"),
    (lambda x: x.index_add(0, L([0, 1]), dtrain.ones(3, 4)), ShapeError, r"source of shape \(2, 4\), got \(3, 4\)"),
    (lambda x: x.index_add(0, L([-1]), dtrain.ones(1, 4)), IndexRangeError, "index_add index for dim 0 is -1"),
    (lambda x: x.index_put((L([0]),), L([[1, 2, 3, 4]])), DtypeError, "index_put expects values of dtrain.float32"),
    (lambda x: x.masked_fill(L([0, 1, 1, 0]), 1.0), DtypeError, "masked_fill expects a bool mask, got dtrain.int64"),
    (lambda x: x.topk(5), IndexRangeError, "topk: k is 5, outside the range 0 to 4"),
    (lambda x: x.select(2, 0), IndexRangeError, "dim 2 is out of range for a tensor with 2 dimensions; expected -2 to 1"),
]


@pytest.mark.parametrize("call, kind, words", MISUSE)
def test_misuse_is_explained(call, kind, words):
    with pytest.raises(kind, match=words):
        call(dtrain.zeros(3, 4))


def test_ranges_are_checked_on_the_gpu_too():
    with pytest.raises(IndexRangeError, match=r"index for dim 0 is 9 at position \(1,\), outside the range -3 to 2"):
        dtrain.zeros(3, 4, device="cuda:0")[L([0, 9], device="cuda:0")]
