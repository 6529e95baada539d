"""The core operations at the edges: 0-dim, empty and size-1 tensors, narrow integers, scalars alone, and words for misuse."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tests.ops.util import check_grad, normal, to_numpy

T = dtrain.tensor
NAN, INF = float("nan"), float("inf")

# name, function of the device's tensor maker, expected values, expected dtype
VALUES = [
    ("sum of uint8", lambda t: t([200, 100], dtype=dtrain.uint8).sum(), 300, "int64"),
    ("sum of int8", lambda t: t([[100, 100]], dtype=dtrain.int8).sum(1), [200], "int64"),
    ("cumsum of uint8", lambda t: t([200, 100], dtype=dtrain.uint8).cumsum(0), [200, 300], "int64"),
    ("prod of uint8", lambda t: t([200, 100], dtype=dtrain.uint8).prod(), 20000, "int64"),
    ("prod of bool", lambda t: t([True, False]).prod(), 0, "int64"),
    ("division rounded to zero", lambda t: dtrain.div(t([7, -7, 8]), t([2, 2, -3]), rounding_mode="trunc"), [3, -3, -2], "int64"),
    ("large integers rounded to zero", lambda t: dtrain.div(t([2**60 + 1]), 1, rounding_mode="trunc"), [2**60 + 1], "int64"),
    ("mixed, rounded to zero", lambda t: dtrain.div(t([7, -7]), t([2.0, 2.0]), rounding_mode="trunc"), [3, -3], "float32"),
    ("floored division", lambda t: t([-7, 7]) // 2, [-4, 3], "int64"),
    ("floored division of floats by 0", lambda t: t([-7.0, 7.0]) // 0, [-INF, INF], "float32"),
    ("remainder takes the divisor's sign", lambda t: t([-7, 7]) % -3, [-1, -2], "int64"),
    ("number over tensor", lambda t: 7 // t([2, -3]), [3, -3], "int64"),
    ("where of numbers", lambda t: dtrain.where(t([True, False]), 1.0, 0.0), [1, 0], "float32"),
    ("where of integers", lambda t: dtrain.where(t([True, False]), 1, 0), [1, 0], "int64"),
    ("where of both", lambda t: dtrain.where(t([True, False]), t([1, 2]), 0.5), [1, 0.5], "float32"),
    ("integers clamped by floats", lambda t: t([1, 2]).clamp(max=1.5), [1, 1.5], "float32"),
    ("integers clamped by a tensor and a float", lambda t: t([1, 2]).clamp(min=t([0, 1]), max=1.5), [1, 1.5], "float32"),
    ("clamped with min above max", lambda t: t([1.0, 2, 3]).clamp(2, 1), [1, 1, 1], "float32"),
    ("roots of integers", lambda t: t([1, 4]).sqrt(), [1, 2], "float32"),
    ("rounding half to even", lambda t: t([0.5, 1.5, 2.5]).round(), [0, 2, 2], "float32"),
    ("integer powers", lambda t: 2 ** t([2, 3]), [4, 8], "int64"),
    ("bools add", lambda t: t([True]) + t([True]), [True], "bool"),
    ("uint8 wraps", lambda t: t([200], dtype=dtrain.uint8) + t([100], dtype=dtrain.uint8), [44], "uint8"),
    ("a 0-dim float64 is weak", lambda t: t([1.0, 2]) * t(2.0, dtype=dtrain.float64), [2, 4], "float32"),
    ("a 0-dim float is not weak among integers", lambda t: t([1, 2]) * t(2.0, dtype=dtrain.float64), [2, 4], "float64"),
    ("a long half sum", lambda t: t([1.0], dtype=dtrain.float16).expand(3000).sum(), 3000, "float16"),
    ("mean of nothing", lambda t: t([]).mean(), NAN, "float32"),
    ("sum of nothing", lambda t: t([]).sum(), 0, "float32"),
    ("prod of nothing", lambda t: t([]).prod(), 1, "float32"),
    ("all of nothing", lambda t: (t([]) > 0).all(), True, "bool"),
    ("logsumexp of nothing", lambda t: t([]).logsumexp(0), -INF, "float32"),
    ("logsumexp of impossible", lambda t: t([-INF, -INF]).logsumexp(0), -INF, "float32"),
    ("logsumexp of large", lambda t: t([1e4, 1e4]).logsumexp(0), 1e4 + np.log(2), "float32"),
    ("amax of empty rows' others", lambda t: t([]).reshape(0, 3).amax(1), [], "float32"),
    ("variance of one", lambda t: t([1.0]).var(), NAN, "float32"),
    ("variance with a correction", lambda t: t([1.0, 2, 4]).var(correction=2), 14 / 3, "float32"),
    ("max of a NaN", lambda t: t([1.0, NAN]).max(), NAN, "float32"),
    ("argmax of a NaN", lambda t: t([1.0, NAN, 3]).argmax(), 1, "int64"),
    ("maximum of a NaN", lambda t: dtrain.maximum(t([NAN, 1.0]), t([0.0, 2.0])), [NAN, 2], "float32"),
    ("argmax of a 0-dim", lambda t: t(3.0).argmax(), 0, "int64"),
    ("max of a 0-dim along 0", lambda t: t(3.0).max(0).values, 3, "float32"),
    ("sort puts NaN last", lambda t: t([1.0, NAN, 0]).sort().values, [0, 1, NAN], "float32"),
    ("descending sort puts NaN first", lambda t: t([1.0, NAN, 0]).sort(descending=True).values, [NAN, 1, 0], "float32"),
    ("topk of a 0-dim", lambda t: t(3.0).topk(1).values, 3, "float32"),
    ("cat with an empty vector", lambda t: dtrain.cat([t([]), t([[1.0, 2]])]), [[1, 2]], "float32"),
    ("cat of empties", lambda t: dtrain.cat([t([]), t([])]), [], "float32"),
    ("repeats, one each", lambda t: t([1, 2, 3]).repeat_interleave(t([1, 0, 2])), [1, 3, 3], "int64"),
    ("repeats, one for all", lambda t: t([1, 2]).repeat_interleave(t([2])), [1, 1, 2, 2], "int64"),
    ("repeats along a negative dim", lambda t: t([[1, 2]]).repeat_interleave(t(2), -1), [[1, 1, 2, 2]], "int64"),
    ("split of nothing", lambda t: t([]).split(2)[0], [], "float32"),
    ("split with a rest", lambda t: t([1, 2, 3, 4, 5]).split(2)[-1], [5], "int64"),
    ("chunk with fewer than asked", lambda t: t([len(t([1, 2, 3, 4, 5]).chunk(4))]), [3], "int64"),
    ("reshape of nothing", lambda t: t([]).reshape(0, 3).reshape(3, -1), [[], [], []], "float32"),
    ("expand of a 0-dim", lambda t: t(2.0).expand(2, 2), [[2, 2], [2, 2]], "float32"),
    ("flip of a 0-dim", lambda t: t(2.0).flip(()), 2, "float32"),
    ("roll backwards along the last", lambda t: t([[1, 2, 3]]).roll(-1, -1), [[2, 3, 1]], "int64"),
    ("nonzero of a 0-dim", lambda t: t(3).nonzero(), [[]], "int64"),
    ("matmul of nothing", lambda t: t([]).reshape(2, 0) @ t([]).reshape(0, 2), [[0, 0], [0, 0]], "float32"),
    ("einsum sorts its implicit output", lambda t: dtrain.einsum("ba", t([[1, 2, 3]])), [[1], [2], [3]], "int64"),
    ("a trace", lambda t: dtrain.einsum("ii", t([[1, 2], [3, 4]])), 5, "int64"),
    ("index_select of a 0-dim index", lambda t: t([[1, 2], [3, 4]]).index_select(0, t(1)), [[3, 4]], "int64"),
    ("scatter of a number", lambda t: t([0.0, 0]).scatter(0, t([1]), 5), [0, 5], "float32"),
    ("scatter_add of repeats", lambda t: t([0.0, 0]).scatter_add(0, t([1, 1]), t([2.0, 3])), [0, 5], "float32"),
]


@pytest.mark.parametrize("name, function, expected, dtype", VALUES, ids=[v[0] for v in VALUES])
def test_values(name, function, expected, dtype, device):
    out = function(lambda data, **options: dtrain.tensor(data, device=device, **options))
    assert str(out.dtype) == f"dtrain.{dtype}" and str(out.device) == device
    values = np.asarray(expected, np.float64)
    assert tuple(out.shape) == values.shape
    np.testing.assert_allclose(to_numpy(out).astype(np.float64), values, rtol=1e-6)


CREATED = [
    (lambda: dtrain.full((2,), 1j), [1j, 1j], dtrain.complex64),
    (lambda: dtrain.full((2,), True), [True, True], dtrain.bool),
    (lambda: dtrain.full(2, 3), [3, 3], dtrain.int64),
    (lambda: dtrain.arange(0, 1, 0.25), [0, 0.25, 0.5, 0.75], dtrain.float32),
    (lambda: dtrain.arange(5, 0, -2), [5, 3, 1], dtrain.int64),
    (lambda: dtrain.arange(0), [], dtrain.int64),
    (lambda: dtrain.linspace(3, 4, 1), [3], dtrain.float32),
    (lambda: dtrain.linspace(3, 4, 0), [], dtrain.float32),
    (lambda: dtrain.linspace(0, 10, 4, dtype=dtrain.int64), [0, 3, 6, 10], dtrain.int64),
    (lambda: T([]), [], dtrain.float32),
    (lambda: T([True, 2]), [1, 2], dtrain.int64),
    (lambda: T([1, 2.5]), [1, 2.5], dtrain.float32),
    (lambda: T(np.arange(2.0)), [0, 1], dtrain.float64),
    (lambda: T([T(1.0), T(2.0)]), [1, 2], dtrain.float32),
]


@pytest.mark.parametrize("make, expected, dtype", CREATED)
def test_created(make, expected, dtype):
    out = make()
    assert out.dtype is dtype and out.tolist() == expected


def test_std_of_equal_values_has_a_gradient_of_zero(device):
    x = dtrain.ones(2, 3, device=device, requires_grad=True)
    x.std(1).sum().backward()
    assert to_numpy(x.grad).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("function", [
    lambda x: x.std(), lambda x: x.std(1), lambda x: x.std((0, 1), correction=0, keepdim=True), lambda x: dtrain.var_mean(x, 0), lambda x: x.var(False),
])  # fmt: skip
def test_gradients_of_spreads(function, device):
    check_grad(function, normal(3, 4), device=device)


@pytest.mark.parametrize("function", [
    lambda x: x.prod(0), lambda x: x.logsumexp((0, 1)), lambda x: x.cumsum(1), lambda x: x.norm(dim=1), lambda x: x.amax(1), lambda x: x.roll(1, 1),
    lambda x: x.max(1).values, lambda x: x.sort(0).values, lambda x: x.tril(), lambda x: x.flip(0), lambda x: x.repeat(2, 1, 2), lambda x: x @ x.mT,
])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3)])
def test_gradients_of_small_sizes(function, shape, device):
    check_grad(function, normal(*shape), device=device)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("function", [
    lambda x: x * 2 + x, lambda x: x.exp(), lambda x: x.sum(0), lambda x: x.mean(), lambda x: x.reshape(-1), lambda x: x.t(), lambda x: x[x > 0],
    lambda x: x @ x.new_zeros(x.shape[-1], 4), lambda x: dtrain.cat([x, x], -1), lambda x: x.sort(-1).values, lambda x: x.cumsum(-1),
    lambda x: x.clone().mul_(2), lambda x: x.flip(0), lambda x: x.expand(2, *x.shape), lambda x: x.repeat_interleave(2, 0), lambda x: x.norm(dim=0),
])  # fmt: skip
def test_empty_tensors_go_through_with_gradients(function, shape, device):
    x = dtrain.zeros(*shape, device=device, requires_grad=True)
    function(x).sum().backward()
    assert tuple(x.grad.shape) == shape


MISUSE = [
    (lambda d: dtrain.div(T([1.0], device=d), 2, rounding_mode="up"), ArgumentError, "rounding_mode is 'up'; expected None, 'trunc' or 'floor'"),
    (lambda d: T([1.0], device=d).clamp(), ArgumentError, "min, max or both"),
    (lambda d: T([1.0, 2], device=d).tril(), ShapeError, r"tril expects at least two dims, got shape \(2,\)"),
    (lambda d: dtrain.cat([T(1.0, device=d), T(2.0, device=d)]), ShapeError, "use stack"),
    (lambda d: dtrain.cat([dtrain.ones(2, 3, device=d), dtrain.ones(2, 2, device=d)]), ShapeError, r"tensor 1 has shape \(2, 2\), tensor 0 has \(2, 3\)"),
    (lambda d: dtrain.cat([]), ArgumentError, "empty list"),
    (lambda d: dtrain.stack([T([1.0], device=d), T([1.0, 2], device=d)]), ShapeError, "all must be equal"),
    (lambda d: dtrain.ones(2, 3, device=d).roll((1, 1), 0), ArgumentError, "2 shifts for 1 dims"),
    (lambda d: T([1, 2], device=d).repeat_interleave(T([1, 2, 3], device=d)), ShapeError, "3 counts for dim 0 of size 2"),
    (lambda d: T([1, 2], device=d).repeat_interleave(T([1, -2], device=d)), ArgumentError, "cannot be negative, got -2"),
    (lambda d: T([1, 2], device=d).float().mean(dim=1), IndexRangeError, "dim 1 is out of range for a tensor with 1 dimensions; expected -1 to 0"),
    (lambda d: T([1, 2], device=d).mean(), DtypeError, "floating point tensor, got dtrain.int64"),
    (lambda d: T([1, 2], device=d).std(), DtypeError, "floating point tensor, got dtrain.int64"),
    (lambda d: dtrain.ones(2, 3, device=d).sum((0, 0)), ShapeError, "names one dimension twice"),
    (lambda d: dtrain.zeros(0, device=d).amax(), ShapeError, "over an empty dim has no value"),
    (lambda d: dtrain.zeros(3, 0, device=d).argmax(1), ShapeError, "over an empty dim has no value"),
    (lambda d: dtrain.ones(2, 3, device=d).reshape(4, 2), ShapeError, r"cannot make shape \(4, 2\) of a tensor of shape \(2, 3\)"),
    (lambda d: dtrain.ones(2, 3, device=d).reshape(-1, -1), ShapeError, "cannot make shape"),
    (lambda d: dtrain.ones(0, 3, device=d).reshape(-1, 0), ShapeError, "cannot make shape"),
    (lambda d: dtrain.ones(2, 3, device=d).t().view(6), ShapeError, r"Use .reshape\(\)"),
    (lambda d: dtrain.ones(2, 3, device=d).permute(0, 0), ShapeError, "does not name each of the 2 dims"),
    (lambda d: dtrain.ones(2, 3, device=d).expand(4, 3), ShapeError, r"cannot expand shape \(2, 3\) to \(4, 3\): dim 0 is 2, not 1"),
    (lambda d: dtrain.ones(4, device=d).split(0), ArgumentError, "positive size"),
    (lambda d: dtrain.ones(4, device=d).split([1, 2]), ShapeError, "sum to 3, but dim 0 has size 4"),
    (lambda d: dtrain.ones(6, device=d).narrow(0, 4, 3), ArgumentError, "start 4 and length 3 do not fit"),
    (lambda d: dtrain.ones(2, 3, device=d) @ dtrain.ones(2, 3, device=d), ShapeError, r"shapes \(2, 3\) and \(2, 3\): 3 columns do not meet 2 rows"),
    (lambda d: dtrain.ones(2, 2, device=d) @ dtrain.ones(2, 2, device=d, dtype=dtrain.float64), DtypeError, r"one dtype|convert one with"),
    (lambda d: dtrain.ones(2, device=d) + dtrain.ones(3, device=d), ShapeError, r"add cannot take \(\(2,\) float32, \(3,\) float32\)"),
    (lambda d: dtrain.einsum("ij,jk", dtrain.ones(2, 3, device=d)), ShapeError, "names 2 operands, got 1"),
    (lambda d: dtrain.arange(0, 5, -1), ArgumentError, "step of the other sign"),
    (lambda d: dtrain.zeros(2, -1, device=d), ShapeError, "cannot be negative"),
    (lambda d: ~T([1.0], device=d), DtypeError, "invert"),
    (lambda d: dtrain.ones(2, device=d).copy_(dtrain.ones(3, device=d)), ShapeError, r"source of shape \(3,\) does not broadcast to \(2,\)"),
]  # fmt: skip


@pytest.mark.parametrize("call, kind, words", MISUSE)
def test_misuse_is_explained(call, kind, words, device):
    with pytest.raises(kind, match=words):
        call(device)


@pytest.mark.parametrize("divide", [lambda a, b: a // b, lambda a, b: a % b, lambda a, b: dtrain.div(a, b, rounding_mode="trunc")])
def test_integers_are_not_divided_by_zero(divide):
    for b in (T([1, 0]), 0):
        with pytest.raises(ArgumentError, match="integer division by zero"):
            divide(T([7, -7]), b)
    assert divide(T([7.0]), 0).isfinite().tolist() == [False]
