"""Layers have PyTorch's signatures, keys, initial numbers, outputs, gradients and looks."""

import inspect

import numpy as np
import pytest
import torch

import dtrain
from dtrain import nn
from tests.util import check_close

pytestmark = pytest.mark.parity


def pair(build):
    """``build(library)`` for both libraries, from the same seed."""
    modules = []
    for library in (dtrain, torch):
        library.manual_seed(7)
        modules.append(build(library.nn))
    return modules


def values(*shape, seed=0, integers=None, positive=False):
    rng = np.random.default_rng(seed)
    if integers is not None:
        return rng.integers(0, integers, shape)
    x = rng.normal(size=shape).astype(np.float32)
    return abs(x) / (1 + abs(x)) if positive else x


X = values(4, 6)
IMAGE = values(2, 4, 9, 8)
LAYERS = [
    (lambda nn: nn.Linear(6, 5), (X,)),
    (lambda nn: nn.Linear(300, 70, bias=False), (values(3, 300),)),
    (lambda nn: nn.Bilinear(6, 3, 5), (X, values(4, 3))),
    (lambda nn: nn.Identity(3, a=4), (X,)),
    (lambda nn: nn.Embedding(11, 5), (values(3, 4, integers=11),)),
    (lambda nn: nn.Embedding(11, 5, padding_idx=-2), (values(3, 4, integers=11),)),
    (lambda nn: nn.LayerNorm(6), (X,)),
    (lambda nn: nn.LayerNorm((8,), eps=1e-3, bias=False), (IMAGE,)),
    (lambda nn: nn.LayerNorm([9, 8], elementwise_affine=False), (IMAGE,)),
    (lambda nn: nn.RMSNorm(6), (X,)),
    (lambda nn: nn.RMSNorm(6, eps=1e-3, elementwise_affine=False), (X,)),
    (lambda nn: nn.BatchNorm1d(6), (X,)),
    (lambda nn: nn.BatchNorm1d(4, momentum=None), (values(3, 4, 5),)),
    (lambda nn: nn.BatchNorm2d(4, affine=False), (IMAGE,)),
    (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), (IMAGE,)),
    (lambda nn: nn.BatchNorm2d(4, track_running_stats=False).eval(), (IMAGE,)),
    (lambda nn: nn.BatchNorm2d(4, bias=False).eval(), (IMAGE,)),
    (lambda nn: nn.BatchNorm3d(3), (values(2, 3, 4, 2, 2),)),
    (lambda nn: nn.GroupNorm(2, 4), (IMAGE,)),
    (lambda nn: nn.GroupNorm(4, 4, affine=False), (IMAGE,)),
    (lambda nn: nn.Dropout(0.3, inplace=True).eval(), (X,)),
    (lambda nn: nn.Conv1d(4, 6, 3), (values(2, 4, 9),)),
    (lambda nn: nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2), (values(2, 4, 9),)),
    (lambda nn: nn.Conv2d(4, 6, 3), (IMAGE,)),
    (lambda nn: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), bias=False), (IMAGE,)),
    (lambda nn: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=2), (IMAGE,)),
    (lambda nn: nn.Conv2d(4, 6, 2, padding="same", padding_mode="reflect"), (IMAGE,)),
    (lambda nn: nn.Conv2d(4, 6, 2, padding="valid", dilation=2), (IMAGE,)),
    (lambda nn: nn.ZeroPad2d((1, 0, 2, 1)), (IMAGE,)),
    (lambda nn: nn.ConstantPad1d(2, 3.5), (values(2, 4, 9),)),
    (lambda nn: nn.ReflectionPad2d(2), (IMAGE,)),
    (lambda nn: nn.ReplicationPad3d(1), (values(1, 2, 3, 3, 2),)),
    (lambda nn: nn.CircularPad1d((1, 2)), (values(2, 4, 9),)),
    (lambda nn: nn.Conv3d(2, 4, 2, stride=2, bias=False), (values(1, 2, 5, 5, 4),)),
    (lambda nn: nn.ConvTranspose1d(4, 6, 3, stride=2), (values(2, 4, 9),)),
    (lambda nn: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2, bias=False, dilation=2), (IMAGE,)),
    (lambda nn: nn.ConvTranspose3d(2, 4, 2), (values(1, 2, 3, 3, 2),)),
    (lambda nn: nn.InstanceNorm1d(4), (values(4, 9),)),
    (lambda nn: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (IMAGE,)),
    (lambda nn: nn.InstanceNorm2d(4, track_running_stats=True).eval(), (IMAGE,)),
    (lambda nn: nn.InstanceNorm3d(2), (values(1, 2, 3, 3, 2),)),
    (lambda nn: nn.Dropout2d(0.4).eval(), (IMAGE,)),
    (lambda nn: nn.MaxPool3d(2), (values(1, 2, 4, 4, 4),)),
    (lambda nn: nn.AvgPool3d(2, stride=1), (values(1, 2, 4, 4, 4),)),
    (lambda nn: nn.AdaptiveAvgPool3d(2), (values(1, 2, 4, 4, 4),)),
    (lambda nn: nn.AdaptiveMaxPool1d(4), (values(2, 4, 9),)),
    (lambda nn: nn.AdaptiveMaxPool2d((3, None)), (IMAGE,)),
    (lambda nn: nn.AdaptiveMaxPool3d(2), (values(1, 2, 4, 4, 4),)),
    (lambda nn: nn.MaxPool1d(2), (values(2, 4, 9),)),
    (lambda nn: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), (IMAGE,)),
    (lambda nn: nn.MaxPool2d((2, 3), dilation=2), (IMAGE,)),
    (lambda nn: nn.AvgPool1d(3, 2, 1), (values(2, 4, 9),)),
    (lambda nn: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (IMAGE,)),
    (lambda nn: nn.AvgPool2d(2, divisor_override=3), (IMAGE,)),
    (lambda nn: nn.AdaptiveAvgPool1d(4), (values(2, 4, 9),)),
    (lambda nn: nn.AdaptiveAvgPool2d((3, None)), (IMAGE,)),
    (lambda nn: nn.ReLU(), (X,)),
    (lambda nn: nn.ReLU6(), (X * 5,)),
    (lambda nn: nn.GELU(), (X,)),
    (lambda nn: nn.GELU("tanh"), (X,)),
    (lambda nn: nn.SiLU(), (X,)),
    (lambda nn: nn.Mish(), (X,)),
    (lambda nn: nn.Tanh(), (X,)),
    (lambda nn: nn.Sigmoid(), (X,)),
    (lambda nn: nn.LogSigmoid(), (X,)),
    (lambda nn: nn.Softsign(), (X,)),
    (lambda nn: nn.Tanhshrink(), (X,)),
    (lambda nn: nn.Softmax(dim=-1), (X,)),
    (lambda nn: nn.LogSoftmax(dim=0), (X,)),
    (lambda nn: nn.Softmin(dim=1), (X,)),
    (lambda nn: nn.LeakyReLU(0.2), (X,)),
    (lambda nn: nn.LeakyReLU(inplace=True), ()),
    (lambda nn: nn.ELU(0.7), (X,)),
    (lambda nn: nn.CELU(0.7), (X,)),
    (lambda nn: nn.SELU(), (X,)),
    (lambda nn: nn.Softplus(2.0, 1.0), (X,)),
    (lambda nn: nn.Hardswish(), (X * 3,)),
    (lambda nn: nn.Hardsigmoid(), (X * 3,)),
    (lambda nn: nn.Hardtanh(-0.5, 0.7), (X,)),
    (lambda nn: nn.Threshold(0.1, 20.0), (X,)),
    (lambda nn: nn.Hardshrink(), (X,)),
    (lambda nn: nn.Softshrink(0.3), (X,)),
    (lambda nn: nn.GLU(), (X,)),
    (lambda nn: nn.PReLU(4), (IMAGE,)),
    (lambda nn: nn.Flatten(), (IMAGE,)),
    (lambda nn: nn.Unflatten(1, (2, 3)), (X,)),
    (lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1), (X, values(4, integers=6))),
    (lambda nn: nn.CrossEntropyLoss(ignore_index=2, reduction="sum"), (X, values(4, integers=6))),
    (lambda nn: nn.NLLLoss(reduction="none"), (X, values(4, integers=6))),
    (lambda nn: nn.MSELoss(), (X, values(4, 6, seed=1))),
    (lambda nn: nn.L1Loss(reduction="sum"), (X, values(4, 6, seed=1))),
    (lambda nn: nn.SmoothL1Loss(beta=0.5), (X, values(4, 6, seed=1))),
    (lambda nn: nn.HuberLoss(delta=0.5), (X, values(4, 6, seed=1))),
    (lambda nn: nn.BCELoss(), (values(4, 6, positive=True), values(4, 6, seed=1, positive=True))),
    (lambda nn: nn.BCEWithLogitsLoss(), (X, values(4, 6, seed=1, positive=True))),
    (lambda nn: nn.KLDivLoss(reduction="batchmean"), (X, values(4, 6, seed=1, positive=True))),
    (lambda nn: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), (X,)),
    (lambda nn: nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()]), ()),
    (lambda nn: nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Sequential(nn.ReLU())}), ()),
]  # fmt: skip


def name_of(case):
    return repr(case[0](torch.nn)).split("\n")[0] + "_"


@pytest.mark.parametrize("build, inputs", LAYERS, ids=map(name_of, LAYERS))
def test_layer(build, inputs):
    """Same looks, same state, same output, same gradients."""
    ours, theirs = pair(build)
    assert repr(ours) == repr(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    assert mine._metadata == other._metadata
    for key, value in other.items():
        np.testing.assert_allclose(mine[key].numpy(), value.numpy(), rtol=3e-7, atol=0, err_msg=key)  # normal numbers may differ in the last digit
    if not inputs:
        return
    xs = [dtrain.tensor(x) for x in inputs]
    ys = [torch.tensor(x) for x in inputs]
    for x, y in zip(xs, ys):
        if y.is_floating_point():
            x.requires_grad_()
            y.requires_grad_()
    outs = ours(*xs), theirs(*ys)
    check_close(outs[0].detach(), outs[1].detach(), 2e-6)
    for key, value in theirs.state_dict().items():
        check_close(ours.state_dict()[key], value, 2e-6, key)
    if outs[1].requires_grad:
        weights = values(*outs[1].shape, seed=5)
        (outs[0] * dtrain.tensor(weights)).sum().backward()
        (outs[1] * torch.tensor(weights)).sum().backward()
        for x, y in zip([*xs, *ours.parameters()], [*ys, *theirs.parameters()]):
            if y.grad is not None:
                check_close(x.grad, y.grad, 2e-5)


def public_layers():
    return [name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module)]


@pytest.mark.parametrize("name", public_layers())
def test_signature(name):
    """Every argument PyTorch's constructor takes we take too, at the same place with the same default."""
    mine = [p for p in inspect.signature(getattr(nn, name).__init__).parameters.values()]
    theirs = [p for p in inspect.signature(getattr(torch.nn, name).__init__).parameters.values()]
    if any(p.kind is p.VAR_POSITIONAL for p in theirs):
        return
    theirs = [p for p in theirs if p.name not in ("min_value", "max_value")]  # Hardtanh's, deprecated since 2017
    assert [(p.name, p.kind, p.default) for p in mine] == [(p.name, p.kind, p.default) for p in theirs]


INIT = [
    ("uniform_", (8, 5), (-1.0, 2.0)),
    ("normal_", (8, 5), (1.0, 2.0)),
    ("normal_", (3,), ()),
    ("trunc_normal_", (30, 5), ()),
    ("trunc_normal_", (30, 5), (0.0, 0.02)),
    ("trunc_normal_", (30, 5), (0.0, 1.0, 0.5, 2.0)),
    ("trunc_normal_", (30, 5), (0.0, 1.0, 2.0, 3.0)),
    ("constant_", (3, 2), (1.5,)),
    ("ones_", (3, 2), ()),
    ("zeros_", (3, 2), ()),
    ("eye_", (3, 5), ()),
    ("dirac_", (6, 3, 3, 3), (2,)),
    ("xavier_uniform_", (8, 5, 3), (2.0,)),
    ("xavier_normal_", (8, 5), ()),
    ("kaiming_uniform_", (8, 5, 2, 2), ()),
    ("kaiming_uniform_", (8, 5), (0.2, "fan_out", "leaky_relu")),
    ("kaiming_normal_", (8, 5), (0, "fan_in", "relu")),
    ("sparse_", (10, 4), (0.3,)),
]


@pytest.mark.parametrize("name, shape, args", INIT)
def test_init(name, shape, args):
    out = []
    for library in (dtrain, torch):
        library.manual_seed(11)
        t = library.empty(shape)
        assert getattr(library.nn.init, name)(t, *args) is t
        out.append(t.numpy())
    if name in ("normal_", "xavier_normal_", "kaiming_normal_", "sparse_", "trunc_normal_"):
        np.testing.assert_allclose(*out, rtol=1e-6, atol=1e-7)
    else:
        np.testing.assert_array_equal(*out)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3)])
def test_orthogonal(shape):
    out = []
    for library in (dtrain, torch):
        library.manual_seed(11)
        out.append(library.nn.init.orthogonal_(library.empty(shape), gain=2.0).numpy())
    np.testing.assert_allclose(*out, rtol=1e-4, atol=1e-5)


def test_gain():
    for name, param in [("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None), ("leaky_relu", 0.3)]:
        assert nn.init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


def mlp(nn):
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 3))


@pytest.mark.parametrize(
    "name, options", [("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)), ("SGD", dict(lr=0.2)), ("Adam", dict(lr=0.01)), ("AdamW", dict(lr=0.01))]
)
def test_training(name, options):
    """The same seed gives the same 20 steps."""
    models = pair(mlp)
    data, labels = values(64, 8), values(64, integers=3)
    losses = [[], []]
    for i, library in enumerate((dtrain, torch)):
        model, x, y = models[i], library.tensor(data), library.tensor(labels)
        optimizer = getattr(library.optim, name)(model.parameters(), **options)
        schedule = library.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        for _ in range(20):
            optimizer.zero_grad()
            loss = library.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            norm = library.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            losses[i] += [loss.item(), norm.item()]
    np.testing.assert_allclose(*losses, rtol=2e-5)
    assert losses[0][-2] < 0.9 * losses[0][0]
    for p, q in zip(models[0].parameters(), models[1].parameters()):
        check_close(p.detach(), q.detach(), 1e-4)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3, "inf", float("inf"), 0.5])
@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clip_grad_norm(norm_type, max_norm):
    models = pair(mlp)
    totals = []
    for library, model in zip((dtrain, torch), models):
        library.nn.functional.cross_entropy(model(library.tensor(values(64, 8))), library.tensor(values(64, integers=3))).backward()
        totals.append(library.nn.utils.clip_grad_norm_(model.parameters(), max_norm, norm_type=norm_type).item())
        library.nn.utils.clip_grad_value_(model.parameters(), 0.01)
    np.testing.assert_allclose(*totals, rtol=1e-5)
    for p, q in zip(models[0].parameters(), models[1].parameters()):
        check_close(p.grad, q.grad, 1e-5)


def test_pytorchs_state_dict_loads_as_it_is():
    ours, theirs = pair(lambda nn: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2)))
    torch.nn.init.normal_(theirs[0].weight)
    theirs[1].num_batches_tracked += 3
    assert repr(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())
    ours[0].weight.data.zero_()
    assert theirs[0].weight.abs().sum() > 0  # a copy, although both can share memory


def test_full_backward_hooks_see_the_same():
    models = pair(mlp)
    seen = [[], []]
    for i, library in enumerate((dtrain, torch)):
        model = models[i]
        model[3].register_full_backward_hook(lambda m, gi, go: seen[i].append([None if g is None else g.numpy() for g in (*gi, *go)]))
        model[0].register_full_backward_hook(lambda m, gi, go: seen[i].append([None if g is None else g.numpy() for g in (*gi, *go)]))
        model[4].register_full_backward_pre_hook(lambda m, go: tuple(2 * g for g in go))
        model(library.tensor(values(5, 8))).sum().backward()
    assert len(seen[0]) == len(seen[1]) == 2
    for mine, theirs in zip(*seen):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            assert (a is None) == (b is None)
            if a is not None:
                check_close(a, b, 1e-5)
    for p, q in zip(models[0].parameters(), models[1].parameters()):
        check_close(p.grad, q.grad, 1e-5)


def test_output_size_of_transposed_convolutions():
    ours, theirs = pair(lambda nn: nn.ConvTranspose2d(4, 3, 3, stride=3))
    for size in [(28, 25), (2, 3, 29, 26)]:
        check_close(ours(dtrain.tensor(IMAGE), output_size=size).detach(), theirs(torch.tensor(IMAGE), output_size=size).detach(), 1e-5)
    with pytest.raises(ValueError, match="it can be"):
        ours(dtrain.tensor(IMAGE), output_size=(40, 24))


def test_pooling_with_indices():
    for build in (lambda nn: nn.MaxPool2d(2, return_indices=True), lambda nn: nn.AdaptiveMaxPool2d((3, 2), return_indices=True)):
        ours, theirs = pair(build)
        for mine, other in zip(ours(dtrain.tensor(IMAGE)), theirs(torch.tensor(IMAGE))):
            np.testing.assert_array_equal(mine.numpy(), other.numpy())
