"""Losses and rearrangements made of other operations: gradients, and what they refuse."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, ShapeError
from dtrain.ops import distance_loss as d
from dtrain.ops import rearrange
from tests.ops.util import check_grad, normal, positive, to_numpy

SIGNS = np.array([[1, -1, 1, -1]] * 3, np.float32)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("fn, operands", [
    (lambda a, b, t, reduction: d.margin_ranking_loss(a, b, t, 0.1, reduction=reduction), [normal(3, 4), normal(3, 4, seed=1), SIGNS]),
    (lambda a, t, reduction: d.hinge_embedding_loss(a, t, reduction=reduction), [normal(3, 4), SIGNS]),
    (lambda a, b, t, reduction: d.cosine_embedding_loss(a, b, t, -0.2, reduction=reduction), [normal(4, 3), normal(4, 3, seed=1), SIGNS[0]]),
    (lambda a, p, n, reduction: d.triplet_margin_loss(a, p, n, swap=True, reduction=reduction), [normal(4, 3, seed=s) for s in range(3)]),
    (lambda a, t, v, reduction: d.gaussian_nll_loss(a, t, v, True, reduction=reduction), [normal(3, 4), normal(3, 4, seed=1), positive(3, 4)]),
    (lambda a, t, reduction: d.poisson_nll_loss(a, t, full=True, reduction=reduction), [normal(3, 4), positive(3, 4).astype(np.float32)]),
    (lambda a, t, reduction: d.soft_margin_loss(a, t, reduction=reduction), [normal(3, 4), SIGNS]),
    (lambda a, t, reduction: d.multilabel_soft_margin_loss(a, t, reduction=reduction), [normal(3, 4), SIGNS > 0]),
])  # fmt: skip
def test_losses(fn, operands, reduction, device):
    if operands[-1] is not None and operands[-1].dtype == bool:
        operands = [*operands[:-1], operands[-1].astype(np.float32)]
    check_grad(lambda *xs: fn(*xs, reduction=reduction), *operands, device=device)


@pytest.mark.parametrize("fn, shape", [
    (lambda x: rearrange.unfold(x, (2, 3), padding=1, stride=2), (2, 3, 5, 6)),
    (lambda x: rearrange.unfold(x, 2, dilation=2), (3, 5, 6)),
    (lambda x: rearrange.fold(x, (4, 5), 2, padding=1), (2, 8, 30)),
    (lambda x: rearrange.pixel_shuffle(x, 2), (2, 8, 3, 2)),
    (lambda x: rearrange.pixel_unshuffle(x, 2), (8, 4, 2)),
    (lambda x: rearrange.channel_shuffle(x, 2), (2, 6, 3)),
])  # fmt: skip
def test_rearrangements(fn, shape, device):
    check_grad(fn, normal(*shape), device=device)


def test_unshuffle_reverses_shuffle():
    x = dtrain.tensor(normal(2, 8, 3, 2))
    np.testing.assert_array_equal(to_numpy(rearrange.pixel_unshuffle(rearrange.pixel_shuffle(x, 2), 2)), to_numpy(x))


def test_errors_say_what_to_do():
    x = dtrain.zeros(2, 3, 4, 4)
    with pytest.raises(ShapeError, match="multiple of 4"):
        rearrange.pixel_shuffle(x, 2)
    with pytest.raises(ShapeError, match="multiples of 3"):
        rearrange.pixel_unshuffle(x, 3)
    with pytest.raises(ShapeError, match="C \\* 4, 9"):
        rearrange.fold(dtrain.zeros(2, 8, 8), 4, 2)
    with pytest.raises(ArgumentError, match="0 or more"):
        d.gaussian_nll_loss(x, x, x - 1)
    with pytest.raises(ArgumentError, match="above 0"):
        d.triplet_margin_loss(x, x, x, margin=0)
    with pytest.raises(ShapeError, match="number of dims"):
        d.margin_ranking_loss(x, x[0], x)
