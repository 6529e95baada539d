"""Losses and softmax: gradients to second order, targets out of range, sizes that differ."""

import numpy as np
import pytest

import dtrain
from dtrain.errors import ArgumentError, DtypeError, GraphError, IndexRangeError, ShapeError
from dtrain.ops import cross_entropy as ce
from dtrain.ops import loss
from dtrain.ops.softmax import log_softmax, softmax, softmin
from tests.ops.util import check_grad, integers, normal, positive, to_numpy

REDUCTIONS = ["none", "mean", "sum"]
CLASSES = integers(5, 4)
IGNORED = np.array([1, -100, 4, -100])


@pytest.mark.parametrize("fn", [softmax, log_softmax, softmin])
@pytest.mark.parametrize("shape, dim", [((5,), 0), ((3, 5), 1), ((3, 5), 0), ((2, 5, 3), 1), ((), 0), ((2, 0), 1)])
def test_softmax(fn, shape, dim, device):
    check_grad(lambda x: fn(x, dim), normal(*shape), device=device)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("x, target, options", [
    ((4, 5), CLASSES, {}),
    ((4, 5), IGNORED, {}),
    ((4, 5), CLASSES.astype(np.uint8), {"label_smoothing": 0.2}),
    ((4, 5), IGNORED.astype(np.int32), {"label_smoothing": 0.2}),
    ((4, 5), CLASSES, {"ignore_index": int(CLASSES[0]), "label_smoothing": 0.1}),
    ((5,), np.array(3), {}),
    ((2, 5, 3), integers(5, 2, 3), {"label_smoothing": 0.1}),
    ((2, 5, 3, 2), integers(5, 2, 3, 2), {}),
])  # fmt: skip
def test_cross_entropy(x, target, options, reduction, device):
    weight = positive(5).astype(np.float32)
    check_grad(lambda x, t: ce.cross_entropy(x, t, reduction=reduction, **options), normal(*x), target, device=device)
    check_grad(lambda x, t, w: ce.cross_entropy(x, t, w, reduction=reduction, **options), normal(*x), target, weight, device=device)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_with_probabilities(reduction, device):
    fn = lambda x, t: ce.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1)  # noqa: E731
    check_grad(fn, normal(3, 5), positive(3, 5), device=device)
    check_grad(fn, normal(3, 5, 2), positive(3, 5, 2), device=device)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("x, target", [((4, 5), CLASSES), ((4, 5), IGNORED), ((2, 5, 3), integers(5, 2, 3)), ((5,), np.array(2))])
def test_nll_loss(x, target, reduction, device):
    weight = positive(5).astype(np.float32)
    check_grad(lambda x, t, w: ce.nll_loss(x, t, w, reduction=reduction), normal(*x), target, weight, device=device)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("fn", [
    loss.mse_loss, loss.l1_loss, loss.smooth_l1_loss, loss.huber_loss, loss.binary_cross_entropy_with_logits,
    lambda x, t, reduction: loss.smooth_l1_loss(x, t, beta=0.3, reduction=reduction),
    lambda x, t, reduction: loss.smooth_l1_loss(x, t, beta=0, reduction=reduction),
    lambda x, t, reduction: loss.huber_loss(x, t, delta=0.3, reduction=reduction),
    lambda x, t, reduction: loss.mse_loss(x, t, weight=t * t + 1, reduction=reduction),
    lambda x, t, reduction: loss.kl_div(x, t, log_target=True, reduction=reduction),
    lambda x, t, reduction: loss.kl_div(x, t * t, reduction=reduction),
    lambda x, t, reduction: loss.binary_cross_entropy(x.sigmoid(), t, reduction=reduction),
])  # fmt: skip
def test_pair_losses(fn, reduction, device):
    check_grad(lambda x, t: fn(x, t, reduction=reduction), normal(3, 4), normal(3, 4, seed=1), device=device)


def test_weights_of_binary_cross_entropy(device):
    w, p = positive(3, 1).astype(np.float32), positive(4, seed=1).astype(np.float32)
    check_grad(lambda x, t, w: loss.binary_cross_entropy(x.sigmoid(), t, w), normal(3, 4), positive(3, 4), w, device=device)
    check_grad(
        lambda x, t, w, p: loss.binary_cross_entropy_with_logits(x, t, w, pos_weight=p), normal(3, 4), positive(3, 4), w, p, device=device
    )


def test_batchmean_divides_by_the_batch():
    x, t = dtrain.tensor(normal(3, 4)), dtrain.tensor(positive(3, 4))
    total, batch = loss.kl_div(x, t, reduction="sum"), loss.kl_div(x, t, reduction="batchmean")
    assert abs(total.item() / 3 - batch.item()) < 1e-12


@pytest.mark.parametrize("bad, at", [(5, (2,)), (-1, (2,)), (-7, (0,))])
def test_a_target_out_of_range_is_named(bad, at, device):
    target = np.array([0, -100, 1, 2])
    target[at] = bad
    with pytest.raises(IndexRangeError, match=rf"target {bad} at position \({at[0]},\).* 0 to 4"):
        ce.cross_entropy(dtrain.tensor(normal(4, 5), device=device), dtrain.tensor(target, device=device))


def test_when_everything_is_ignored_the_loss_is_nan_and_the_gradient_zero():
    x = dtrain.tensor(normal(2, 3)).requires_grad_()
    out = ce.cross_entropy(x, dtrain.tensor([-100, -100]))
    out.backward()
    assert np.isnan(out.item()) and not to_numpy(x.grad).any()


def test_losses_refuse_to_broadcast():
    with pytest.raises(ShapeError, match=r"squeeze\(-1\)"):
        loss.mse_loss(dtrain.zeros(4, 1), dtrain.zeros(4))
    with pytest.raises(ShapeError, match=r"target.squeeze\(-1\)"):
        loss.l1_loss(dtrain.zeros(4), dtrain.zeros(4, 1))
    with pytest.raises(ShapeError, match="expand"):
        loss.binary_cross_entropy_with_logits(dtrain.zeros(4, 3), dtrain.zeros(3))


def test_errors_say_what_to_do():
    x = dtrain.zeros(4, 5)
    with pytest.raises(ShapeError, match=r"needs a target of shape \(4,\), got \(3,\)"):
        ce.cross_entropy(x, dtrain.tensor([0, 1, 2]))
    with pytest.raises(DtypeError, match="integers"):
        ce.cross_entropy(x, dtrain.zeros(4))
    with pytest.raises(ArgumentError, match="'none', 'mean', 'sum'"):
        loss.mse_loss(x, x, reduction="avg")
    with pytest.raises(ArgumentError, match="with_logits"):
        loss.binary_cross_entropy(x - 1, x)
    with pytest.raises(ArgumentError, match="above 0"):
        loss.huber_loss(x, x, delta=0)
    with pytest.raises(GraphError, match=r"weight.detach\(\)"):
        ce.cross_entropy(x, dtrain.tensor([0, 1, 2, 3]), dtrain.ones(5).requires_grad_())
    with pytest.raises(ShapeError, match="5 classes"):
        ce.nll_loss(x, dtrain.tensor([0, 1, 2, 3]), dtrain.ones(4))


def test_large_scores_do_not_overflow():
    x = dtrain.tensor([[1e4, -1e4], [88.0, 1000.0]]).requires_grad_()
    out = ce.cross_entropy(x, dtrain.tensor([0, 0]))
    out.backward()
    assert out.item() == 456.0 and np.isfinite(to_numpy(x.grad)).all()


def test_large_cross_entropy_goes_through_in_pieces():
    x, t = normal(700, 300, dtype=np.float32), integers(300, 700)
    scores = dtrain.tensor(x).requires_grad_()
    out = ce.cross_entropy(scores, dtrain.tensor(t))
    out.backward()
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert abs(out.item() + np.log(p[np.arange(700), t]).mean()) < 1e-5
    p[np.arange(700), t] -= 1
    np.testing.assert_allclose(to_numpy(scores.grad), p / 700, atol=1e-8)


def test_meta_tensors_give_shapes():
    x, t = dtrain.empty(4, 5, device="meta").requires_grad_(), dtrain.empty(4, dtype=dtrain.int64, device="meta")
    out = ce.cross_entropy(x, t, label_smoothing=0.1)
    out.backward()
    assert out.shape == () and x.grad.shape == (4, 5)
    assert ce.cross_entropy(x, t, reduction="none").shape == (4,)
