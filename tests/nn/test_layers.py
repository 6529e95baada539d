"""Layers on every device: what they do beyond the operations they call."""

import numpy as np
import pytest

import dtrain
from dtrain import nn
from dtrain.errors import ArgumentError, ShapeError, UnsupportedError
from tests.util import check_close, normal, to_numpy


def make(device, *shape, seed=0):
    return dtrain.tensor(normal(*shape, dtype=np.float32, seed=seed), device=device)


def test_linear(device):
    m = nn.Linear(5, 3, device=device)
    x = make(device, 2, 4, 5)
    check_close(m(x).detach(), to_numpy(x) @ to_numpy(m.weight).T + to_numpy(m.bias))
    assert nn.Linear(5, 3, bias=False).bias is None and nn.Linear(2, 2, dtype=dtrain.float64).weight.dtype is dtrain.float64
    assert abs(to_numpy(nn.Linear(100, 50, device=device).weight)).max() <= 0.1


def test_a_plain_tensor_may_take_a_parameters_place():
    m = nn.Linear(2, 2)
    weight = m.weight
    del m.weight
    m.weight = weight * 2
    m(dtrain.ones(1, 2)).sum().backward()
    assert weight.grad is not None


def test_embedding(device):
    m = nn.Embedding(7, 3, padding_idx=0, device=device)
    index = dtrain.tensor([[0, 2], [6, 2]], device=device)
    assert not to_numpy(m.weight)[0].any()
    check_close(m(index).detach(), to_numpy(m.weight)[to_numpy(index)])
    m(index).sum().backward()
    assert to_numpy(m.weight.grad).sum(1).tolist() == [0, 0, 6, 0, 0, 0, 3]
    table = make(device, 4, 2)
    fixed = nn.Embedding.from_pretrained(table)
    assert not fixed.weight.requires_grad and fixed.weight._array is table._array
    for options, error in [(dict(max_norm=1.0), UnsupportedError), (dict(sparse=True), UnsupportedError), (dict(padding_idx=7), ArgumentError)]:
        with pytest.raises(error):
            nn.Embedding(7, 3, **options)
    with pytest.raises(IndexError, match="7"):
        nn.Embedding(7, 3)(dtrain.tensor([7]))


def test_batch_norm_learns_and_then_keeps_its_statistics(device):
    m = nn.BatchNorm1d(3, momentum=0.5, device=device)
    x = make(device, 8, 3) * 4 + 1
    y = to_numpy(m(x).detach())
    check_close(y.mean(0), np.zeros(3), 1e-5)
    data = to_numpy(x)
    check_close(m.running_mean, 0.5 * data.mean(0), 1e-5)
    check_close(m.running_var, 0.5 + 0.5 * data.var(0, ddof=1), 1e-5)
    assert m.num_batches_tracked.item() == 1
    m.eval()
    check_close(m(x).detach(), (data - to_numpy(m.running_mean)) / np.sqrt(to_numpy(m.running_var) + 1e-5), 1e-5)
    assert m.num_batches_tracked.item() == 1
    m.reset_running_stats()
    assert to_numpy(m.running_var).tolist() == [1, 1, 1]


def test_dropout(device):
    m = nn.Dropout(0.25)
    x = dtrain.ones(1000, device=device).requires_grad_()
    y = m(x)
    kept = to_numpy(y.detach()) != 0
    assert 0.65 < kept.mean() < 0.85
    check_close(y.detach(), kept / np.float32(0.75))
    y.sum().backward()
    check_close(x.grad, kept / np.float32(0.75))
    assert m.eval()(x) is x
    with pytest.raises(ArgumentError, match="probability"):
        nn.Dropout(1.5)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_conv_padding_modes(device, padding_mode):
    m = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=padding_mode, device=device)
    x = make(device, 2, 2, 6, 5)
    mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[padding_mode]
    padded = np.pad(to_numpy(x), [(0, 0), (0, 0), (1, 1), (2, 2)], mode=mode)
    plain = dtrain.nn.functional.conv2d(dtrain.tensor(padded, device=device), m.weight, m.bias)
    check_close(m(x).detach(), plain.detach(), 1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        lambda: nn.Conv2d(2, 4, (3, 3, 3)),
        lambda: nn.Conv2d(2, 4, 3, padding="same", stride=2),
        lambda: nn.Conv2d(2, 4, 3, padding="full"),
        lambda: nn.Conv2d(2, 4, 3, padding_mode="mirror"),
        lambda: nn.GroupNorm(3, 4),
        lambda: nn.MSELoss(reduction="average"),
        lambda: nn.Linear(-1, 2),
    ],
)
def test_impossible_settings_are_refused(build):
    with pytest.raises(ArgumentError):
        build()


def test_losses_keep_weights_as_buffers(device):
    loss = nn.CrossEntropyLoss(weight=dtrain.tensor([1.0, 2.0, 3.0])).to(device)
    assert list(loss.state_dict()) == ["weight"]
    logits, target = make(device, 4, 3), dtrain.tensor([0, 1, 2, 1], device=device)
    p = np.exp(to_numpy(logits))
    p /= p.sum(1, keepdims=True)
    w = np.array([1, 2, 3, 2])
    check_close(loss(logits, target), (-np.log(p[range(4), [0, 1, 2, 1]]) * w).sum() / w.sum(), 1e-5)
    assert nn.MSELoss(size_average=False).reduction == "sum" and nn.MSELoss(reduce=False).reduction == "none"


def test_an_embedding_of_the_wrong_shape():
    with pytest.raises(ShapeError):
        nn.Embedding.from_pretrained(dtrain.ones(3))
    with pytest.raises(ShapeError):
        nn.Embedding(3, 2, _weight=dtrain.ones(2, 2))


def test_bilinear(device):
    m = nn.Bilinear(3, 4, 2, device=device)
    x, y = make(device, 5, 3), make(device, 5, 4, seed=1)
    expected = np.einsum("ni,kij,nj->nk", to_numpy(x), to_numpy(m.weight), to_numpy(y)) + to_numpy(m.bias)
    check_close(m(x, y).detach(), expected, 1e-5)
    with pytest.raises(ShapeError, match="bilinear expects"):
        m(x, x)
