"""Writing in place, into tensors and into views: values, gradients to second order, and what is refused."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import DtypeError, GraphError, ShapeError
from dtrain.ops.table import IN_PLACE, OPERATORS_IN_PLACE
from tests.ops import programs
from tests.ops.util import check_grad, normal, positive, to_numpy

M = np.array([[True, False, True, False], [False, False, True, True], [True, True, False, True]])
AT = np.array([[1, 0, 3, 2]])

# name without its underscore: operands after the target, which has shape (3, 4)
CASES = {
    "add": (normal(4),), "sub": (normal(3, 1),), "mul": (normal(4),), "div": (positive(3, 4),), "pow": (2,), "remainder": (positive(4),),
    "floor_divide": (positive(4),), "lerp": (normal(3, 4), 0.3), "addcmul": (normal(3, 4), normal(4)), "addcdiv": (normal(3, 4), positive(4)),
    "clamp": (-0.5, 0.5), "clamp_min": (0.1,), "clamp_max": (0.1,), "neg": (), "abs": (), "exp": (), "log": (), "sqrt": (), "rsqrt": (),
    "reciprocal": (), "sigmoid": (), "tanh": (), "floor": (), "ceil": (), "round": (), "trunc": (), "sign": (), "square": (),
    "masked_fill": (M, 1.5), "scatter": (0, AT % 3, normal(1, 4)), "scatter_add": (0, AT % 3, normal(1, 4)),
    "index_add": (0, np.array([0, 2]), normal(2, 4)), "tril": (), "triu": (1,),
}  # fmt: skip
NEEDS_POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal", "pow"}
INTEGERS = {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "eq", "ne", "lt", "le", "gt", "ge"}


def tensors(values, device):
    return [dtrain.tensor(v, device=device) if isinstance(v, np.ndarray) else v for v in values]


def target(name):
    return positive(3, 4) if name in NEEDS_POSITIVE else normal(3, 4)


def test_the_table_is_complete():
    known = {*CASES, *INTEGERS, "copy", "fill"}
    assert {*IN_PLACE, "add", "sub"} - known - {"relu", "sigmoid"} <= OTHERS


OTHERS = {"erf", "erfc", "softmax"}  # made of operations tested elsewhere


@pytest.mark.parametrize("name", CASES)
def test_in_place_is_out_of_place_written_back(name, device):
    x = dtrain.tensor(target(name), device=device)
    args = tensors(CASES[name], device)
    expected = getattr(x, name)(*args)
    version, memory = x._version, x._array
    assert getattr(x, name + "_")(*args) is x and x._array is memory and x._version > version
    np.testing.assert_array_equal(to_numpy(x), to_numpy(expected))


@pytest.mark.parametrize("name", CASES)
def test_gradients(name, device):
    if name in ("floor_divide", "floor", "ceil", "round", "trunc", "sign"):
        x = dtrain.tensor(target(name), device=device, requires_grad=True)
        getattr(x * 1, name + "_")(*tensors(CASES[name], device)).sum().backward()
        assert not to_numpy(x.grad).any()
        return
    check_grad(lambda x, *rest: getattr(x * 1, name + "_")(*rest), target(name), *CASES[name], device=device)


@pytest.mark.parametrize("name", CASES)
def test_gradients_through_a_view_of_a_base(name, device):
    """The same write into the transpose of a slice of a larger tensor; the rest of the base keeps its gradient."""

    def write(x, *rest):
        base = x.new_full((5, 4), 0.5) * x.sum()
        view = base.transpose(0, 1)[:, 1:4].transpose(0, 1)
        view.copy_(x)
        getattr(view, name + "_")(*rest)
        return base, view

    if name not in ("floor_divide", "floor", "ceil", "round", "trunc", "sign"):
        check_grad(write, target(name), *CASES[name], device=device)


@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_integers(name, device):
    x = dtrain.tensor([[0, 1, 2], [3, 4, 5]], device=device)
    args = [] if name == "logical_not" else [dtrain.tensor([0, 1, 3], device=device)]
    expected = getattr(x, name)(*args)
    getattr(x, name + "_")(*args)
    assert x.dtype is dtrain.int64 and x.tolist() == expected.long().tolist()


@pytest.mark.parametrize("operator", OPERATORS_IN_PLACE)
def test_operators(operator, device):
    whole = operator in ("__iand__", "__ior__")
    x = dtrain.tensor([5, 6, 7] if whole else [5.0, 6, 7], device=device)
    expected = getattr(x, operator.replace("__i", "__"))(3)
    alias = x
    x = getattr(x, operator)(3)
    assert x is alias and x.tolist() == expected.tolist()


def test_an_operand_that_overlaps_its_target(device):
    x = dtrain.arange(6, device=device)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7, 9]
    x = dtrain.arange(4, device=device)
    x.copy_(x.flip(0))
    assert x.tolist() == [3, 2, 1, 0]


def test_the_factor_of_an_untracked_target_gets_its_gradient(device):
    """The values overwritten are those its gradient needs."""
    w = dtrain.tensor(3.0, device=device, requires_grad=True)
    x = dtrain.tensor([1.0, 2.0], device=device)
    x.mul_(w)
    x.sum().backward()
    assert w.grad.item() == 3 and x.tolist() == [3, 6]


def test_a_view_made_before_its_base_had_a_history_gets_one(device):
    w = dtrain.tensor(3.0, device=device, dtype=dtrain.float64, requires_grad=True)
    base = dtrain.zeros(2, 2, device=device, dtype=dtrain.float64)
    row, column = base[0], base.t()[0]
    assert not row.requires_grad
    base[0, 0] = w
    assert row.requires_grad and column.requires_grad and row.grad_fn is not None and not row.is_leaf
    (row * 2 + column * 3).sum().backward()
    assert w.grad.item() == 5


def test_views_of_views_follow_their_base(device):
    def chain(x):
        base = x * 1
        inner = base[1:].t()[::2].unsqueeze(0)
        base.mul_(x + 2)
        inner.mul_(inner + 1)
        return base, inner, base.reshape(-1)[3:]

    check_grad(chain, normal(3, 4), device=device)


def test_a_detached_tensor_shares_memory_and_version(device):
    x = dtrain.ones(3, device=device, requires_grad=True)
    y = x * x
    z = y * y
    y.detach().zero_()
    assert y.tolist() == [0, 0, 0] and not y.detach().requires_grad
    with pytest.raises(GraphError, match="Mul .* modified in place"):
        z.sum().backward()


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_against_differences(seed):
    """Where a program may be differentiated, its gradient is that of finite differences."""
    values, rng = programs.operands(), np.random.default_rng(seed)

    def total(*arrays):
        leaves = [dtrain.tensor(a).requires_grad_() for a in arrays]
        live, steps = programs.run(dtrain, seed, *leaves)
        return leaves, programs.loss(dtrain, live), steps

    try:
        leaves, loss, steps = total(*values)
        loss.backward()
    except (GraphError, ShapeError) as error:
        assert "modified in place" in str(error) or "share memory" in str(error) or "read-only" in str(error)
        return
    direction = [rng.standard_normal(v.shape) for v in values]
    step = 1e-6
    high, low = [total(*[v + s * d for v, d in zip(values, direction)])[1].item() for s in (step, -step)]
    ours = sum((to_numpy(x.grad) * d).sum() for x, d in zip(leaves, direction) if x.grad is not None)
    numerical = (high - low) / (2 * step)
    assert abs(numerical - ours) <= 1e-5 * (1 + abs(numerical)), steps


def leaf(**options):
    return dtrain.ones(2, 3, requires_grad=True, **options)


def under_no_grad(x):
    with dtrain.no_grad():
        return (x * 1)[0] if x is None else x[0]


REFUSED = [
    (lambda: leaf().mul_(2), GraphError, r"would modify a leaf tensor that requires grad \(shape \(2, 3\)\) in place; wrap it in dtrain.no_grad"),
    (lambda: leaf()[0].mul_(2), GraphError, "would modify a view of a leaf tensor that requires grad"),
    (lambda: leaf().__setitem__(0, 1.0), GraphError, "view of a leaf tensor"),
    (lambda: under_no_grad(leaf() * 1).mul_(leaf()[0]), GraphError, "a view that was made under no_grad"),
    (lambda: dtrain.ones(3).add_(dtrain.ones(2, 3)), ShapeError, r"add_ writes into a tensor of shape \(3,\) but its result has shape \(2, 3\)"),
    (lambda: dtrain.ones(3).mul_(dtrain.ones(2, 3)), ShapeError, r"mul_ writes into a tensor of shape \(3,\) but its result has shape \(2, 3\)"),
    (lambda: dtrain.arange(3).add_(0.5), DtypeError, r"result type dtrain.float32 of add_ cannot be stored in a tensor of dtrain.int64"),
    (lambda: dtrain.arange(3).div_(2), DtypeError, "result type dtrain.float32 of div_ cannot be stored"),
    (lambda: dtrain.zeros(3, dtype=dtrain.bool).add_(1), DtypeError, "result type dtrain.int64 of add_ cannot be stored in a tensor of dtrain.bool"),
    (lambda: dtrain.ones(1, 3).expand(2, 3).add_(1), ShapeError, r"expanded tensor of shape \(2, 3\), whose elements share memory; .clone\(\)"),
    (lambda: dtrain.ones(1).expand(3).zero_(), ShapeError, "share memory"),
    (lambda: dtrain.from_numpy(np.broadcast_to(np.ones(3), (2, 3)))[0].add_(1), GraphError, "read-only memory"),
    (lambda: leaf().requires_grad_(False).requires_grad_().data.numpy() is None or leaf().numpy(), GraphError, r"use .detach\(\).numpy\(\)"),
]


@pytest.mark.parametrize("call, kind, words", REFUSED)
def test_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_no_grad_allows_writes_into_leaves(device):
    x = dtrain.ones(3, device=device, requires_grad=True)
    with dtrain.no_grad():
        x.mul_(2)
        x[0] = 7
        x += 1
    assert x.tolist() == [8, 3, 3] and x.is_leaf and x.requires_grad


FILLS = {
    "uniform_": ((2.0, 3.0), 2.5, 1 / 12),
    "normal_": ((1.0, 2.0), 1.0, 4.0),
    "exponential_": ((2.0,), 0.5, 0.25),
    "bernoulli_": ((0.3,), 0.3, 0.21),
    "random_": ((10, 20), 14.5, 8.25),
}


@pytest.mark.parametrize("name", FILLS)
def test_random_fills_of_views(name, device):
    """A fill of a view that is not contiguous reaches all of its elements and no others, and draws what a plain tensor draws."""
    args, mean, variance = FILLS[name]
    base = dtrain.full((100, 60), -9.0, device=device)
    view = base[:, ::2].t()
    dtrain.manual_seed(3)
    assert getattr(view, name)(*args) is view
    values = to_numpy(base)
    assert (values[:, 1::2] == -9).all() and (values[:, ::2] != -9).all()
    assert abs(values[:, ::2].mean() - mean) < 0.15 and abs(values[:, ::2].var() - variance) < 0.25 * variance
    dtrain.manual_seed(3)
    np.testing.assert_array_equal(to_numpy(getattr(dtrain.zeros(30, 100, device=device), name)(*args)), to_numpy(view))


@pytest.mark.parametrize("name", FILLS)
def test_random_fills_end_the_history(name, device):
    x = dtrain.ones(4, device=device, requires_grad=True)
    y = x * 2
    getattr(y, name)(*FILLS[name][0])
    (y * x).sum().backward()
    np.testing.assert_allclose(to_numpy(x.grad), to_numpy(y))
    with pytest.raises(GraphError, match="a leaf tensor that requires grad"):
        getattr(x, name)(*FILLS[name][0])


def test_draws_of_meta_tensors_are_shapes():
    x = dtrain.empty(3, 4, device="meta")
    for fill in (x.uniform_, x.normal_, x.exponential_, x.bernoulli_, x.random_):
        assert fill() is x
    drawn = [dtrain.randint(5, (2, 3), device="meta"), dtrain.randperm(6, device="meta"), dtrain.randint_like(x, 9), x.bernoulli(), x.multinomial(2)]
    assert [tuple(t.shape) for t in drawn] == [(2, 3), (6,), (3, 4), (3, 4), (3, 2)] and all(t.is_meta for t in drawn)
    assert [str(t.dtype) for t in drawn] == [f"dtrain.{k}" for k in ("int64", "int64", "float32", "float32", "int64")]


def test_bernoulli_draws_for_each_element(device):
    x = dtrain.zeros(1000, device=device).bernoulli_(dtrain.tensor(0.5, device=device))
    assert 300 < x.sum().item() < 700
