"""Errors say where in the model they arose."""

import pytest

import dtrain
from dtrain import nn
from dtrain.errors import ShapeError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Sequential(nn.ReLU(), nn.Linear(9, 2))])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


def message(module, *args):
    with pytest.raises(ShapeError) as caught:
        module(*args)
    return str(caught.value)


def test_path_class_and_settings():
    text = message(Outer(), dtrain.ones(3, 8))
    assert text.startswith("in net.blocks.1.1 Linear(in_features=9, out_features=2, bias=True): linear: expected the last dim")
    assert "9" in text and "(3, 8)" in text


def test_a_lone_layer_and_the_users_own_module():
    assert message(nn.Linear(9, 2), dtrain.ones(8)).startswith("in Linear(in_features=9")

    class Wrong(nn.Module):
        def forward(self, x):
            return x @ x

    assert message(nn.Sequential(Wrong()), dtrain.ones(2, 3)).startswith("in 0 Wrong: matmul of shapes (2, 3) and (2, 3)")


def test_each_error_tells_its_own_place():
    outer = Outer()
    assert message(outer, dtrain.ones(3, 8)) == message(outer, dtrain.ones(3, 8))


def test_other_exceptions_get_a_note():
    class Wrong(nn.Module):
        def forward(self, x):
            return {}["absent"]

    m = nn.Sequential(nn.Identity(), nn.Sequential(Wrong()))
    with pytest.raises(KeyError) as caught:
        m(1)
    assert caught.value.__notes__ == ["in 1.0 Wrong"]


def test_layers_check_their_input():
    assert "(batch, 3, height, width)" in message(nn.Conv2d(3, 4, 2), dtrain.ones(1, 4, 5, 5))
    assert "2-D or 3-D input with 4 channels" in message(nn.BatchNorm1d(4), dtrain.ones(2, 5))
