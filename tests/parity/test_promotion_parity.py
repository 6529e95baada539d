"""Every pair of dtypes and operand classes promotes as in PyTorch."""

import itertools

import numpy as np
import pytest
import torch

from dtrain.backend import dtypes, promotion

SCALARS = [True, 3, 2.5, 1j]


def operands():
    """(ours, torch's) of every dtype with dimensions and without, and of every Python scalar type."""
    for d in dtypes.ALL:
        for shape in [(2,), ()]:
            yield np.ones(shape, d.np), torch.ones(shape, dtype=getattr(torch, d.name))
    yield from zip(SCALARS, SCALARS)


def same(ours, theirs) -> bool:
    # PyTorch's complex32 is the one difference: halves go to complex64 here.
    return ours.name == str(theirs).removeprefix("torch.").replace("complex32", "complex64")


def test_result_type_of_all_pairs():
    pairs = list(itertools.product(operands(), repeat=2))
    wrong = [(a, b) for (a, ta), (b, tb) in pairs if not same(promotion.result_type(a, b), torch.result_type(ta, tb))]
    assert len(pairs) == 28 ** 2 and not wrong


def test_three_operands():
    scalar_tensor = torch.ones((), dtype=torch.float64)
    want = (torch.ones(2, dtype=torch.int8) + scalar_tensor + 1j).dtype
    assert same(promotion.result_type(np.ones(2, np.int8), np.float64(1), 1j), want)


@pytest.mark.parametrize("a", dtypes.ALL, ids=repr)
def test_promote_types_and_can_cast(a):
    ta = getattr(torch, a.name)
    for b in dtypes.ALL:
        tb = getattr(torch, b.name)
        assert same(promotion.promote_types(a, b), torch.promote_types(ta, tb)), b
        assert promotion.can_cast(a, b) == torch.can_cast(ta, tb), b


@pytest.mark.parametrize("d", dtypes.ALL, ids=repr)
def test_limits(d):
    if d is dtypes.bool_:
        return
    info, names = (torch.iinfo, "bits max min") if d.category == dtypes.INT else (torch.finfo, "bits eps max min tiny smallest_normal resolution")
    ours, theirs = getattr(dtypes, info.__name__)(d), info(getattr(torch, d.name))
    assert {n: getattr(ours, n) for n in names.split()} == {n: getattr(theirs, n) for n in names.split()}


@pytest.mark.parametrize("dtype, scalar", [("int8", 300), ("uint8", -1), ("int16", 70000)])
def test_wrapped_scalars_add_alike(dtype, scalar):
    ours = np.add(*promotion.promote_arrays(np, [np.ones(2, dtype), scalar]))
    assert ours.tolist() == (torch.ones(2, dtype=getattr(torch, dtype)) + scalar).tolist()
