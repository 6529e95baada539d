"""Sizes with formulas behave as ints, and know their values at the other sizes."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from dtrain.onnx.sizes import Dim, agree, is_dynamic, other_value, plain, same

HERE, OTHERS = (7, 12), ((3, 5), (14, 2))
T, B = (Dim(HERE[i], (OTHERS[0][i], OTHERS[1][i]), ("dim", "x", i)) for i in (0, 1))

FORMULAS = {
    "sum": lambda t, b: 1 + t + b + 2,
    "difference": lambda t, b: (t - 1, 20 - t, t - b, -t, +t),
    "product": lambda t, b: 3 * t * b,
    "quotient": lambda t, b: (t // 2, 100 // t, b // t, t // 1),
    "rounded up": lambda t, b: -(-t // 4) * 4,
    "remainder": lambda t, b: (t % 4, -t % 4, 30 % t, b % t),
    "both": lambda t, b: divmod(b, 3),
    "sums and products": lambda t, b: (sum([t, b, 1]), math.prod((2, t, b))),
    "neutral": lambda t, b: (t * 1, 1 * t, t + 0, 0 + t, t - 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_hold_at_all_sizes(name):
    found = FORMULAS[name](T, B)
    assert found == FORMULAS[name](*HERE) and is_dynamic(found)
    for i, sizes in enumerate(OTHERS):
        assert other_value(found, i) == FORMULAS[name](*sizes)


def test_what_changes_nothing_adds_no_node():
    assert T * 1 is T and 1 * T is T and T + 0 is T and T - 0 is T and T // 1 is T


def test_division_by_a_size_that_is_zero_elsewhere():
    assert (5 // (T - 3)).others[0] is None and (5 % (T - 3)).others == (None, 5)


def test_other_arithmetic_gives_plain_numbers():
    assert type(T / 2) is float and type(T**2) is int and type(T > 3) is bool and type(int(T)) is int
    with pytest.raises(TypeError):
        T + "a"


def test_same_is_for_every_size():
    again = Dim(7, (3, 14), T.expr)
    assert same(T, again) and same(T + 1, again + 1) and same(3, 3) and not same(T, 7) and not same(3, 4)
    assert not same(T, B) and not same(T + 1, T + 2) and not same(T * 2, T + 2) and not same(T, T + 1)


def test_agree_is_for_the_sizes_met():
    assert agree(T, Dim(7, (3, 14), ("dim", "y", 0))) and not agree(T, 7) and not agree(7, T) and agree(4, 4) and agree(T - T, 0)


def test_copies_are_plain():
    assert type(pickle.loads(pickle.dumps(T))) is int and type(copy.deepcopy(T)) is int
    assert plain((T, [B, 3], slice(T, None))) == (7, [12, 3], slice(7, None)) and not is_dynamic(plain((T, [B], slice(T))))
