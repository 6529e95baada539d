"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from collections import OrderedDict

import pytest

import dtrain
from dtrain import nn
from dtrain.errors import ArgumentError


def layers(n):
    return [nn.Linear(i + 1, i + 2) for i in range(n)]


@pytest.mark.parametrize("make", [lambda ms: nn.Sequential(*ms), nn.ModuleList])
def test_as_a_list(make):
    ms = layers(4)
    box = make(ms)
    assert len(box) == 4 and list(box) == ms and box[1] is ms[1] and box[-1] is ms[3]
    assert list(box[1:3]) == ms[1:3] and type(box[1:3]) is type(box)
    new = nn.ReLU()
    box[0] = new
    box.append(new).extend([nn.Tanh()])
    assert len(box) == 6 and box[0] is new
    box.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in box][:3] == ["ReLU", "Sigmoid", "Linear"] and list(box._modules) == [str(i) for i in range(7)]
    assert isinstance(box.pop(1), nn.Sigmoid) and list(box._modules) == [str(i) for i in range(6)]
    del box[0]
    del box[0:2]
    assert len(box) == 3 and list(box._modules) == ["0", "1", "2"]
    box += [nn.ReLU()]
    assert len(box + type(box)(*([],) if isinstance(box, nn.ModuleList) else ())) == 4
    with pytest.raises(IndexError, match="out of range"):
        box[9]
    with pytest.raises(TypeError, match="not a Module"):
        box.append(3)


def test_sequential():
    named = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU(), c=nn.Tanh()))
    assert list(named._modules) == ["a", "b", "c"] and named.b is named[1]
    del named[1]
    assert list(named._modules) == ["a", "c"]
    assert list(named[1:]._modules) == ["c"]
    doubled = nn.Sequential(nn.Linear(2, 2), nn.ReLU()) * 2
    assert len(doubled) == 4 and doubled[0] is doubled[2]
    assert nn.Sequential()(5) == 5
    with pytest.raises(ArgumentError, match="whole number"):
        doubled * 0


def test_module_dict():
    box = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
    assert list(box) == ["a", "b"] == list(box.keys()) and "a" in box and len(box) == 2
    box.update([("c", nn.Linear(1, 1))])
    assert list(dict(box.named_parameters())) == ["c.weight", "c.bias"] and isinstance(box.pop("c"), nn.Linear)
    with pytest.raises(KeyError, match="'a', 'b'"):
        box["absent"]
    with pytest.raises(ArgumentError, match="already has an attribute"):
        box["keys"] = nn.ReLU()
    box.clear()
    assert not len(box)


def test_repeated_modules_are_shown_once():
    assert repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_parameter_list():
    box = nn.ParameterList([dtrain.ones(2), nn.Parameter(dtrain.ones(3))])
    assert len(box) == 2 and all(isinstance(p, nn.Parameter) for p in box)
    box.append(dtrain.zeros(1))
    box[0] = dtrain.zeros(4)
    assert list(dict(box.named_parameters())) == ["0", "1", "2"] and box[0].shape == (4,) and len(box[1:]) == 2
    box += [dtrain.ones(1)]
    assert list(box.state_dict()) == ["0", "1", "2", "3"]
    assert "(0): Parameter containing: [dtrain.float32 of size 4]" in repr(box)
    with pytest.raises(TypeError, match="iterable"):
        box.extend(dtrain.ones(3))


def test_parameter_dict():
    box = nn.ParameterDict({"a": dtrain.ones(2)})
    box["b"] = nn.Parameter(dtrain.ones(1))
    assert list(box) == ["a", "b"] and "a" in box and isinstance(box["a"], nn.Parameter) and box.get("z") is None
    assert list(box.state_dict()) == ["a", "b"] and [k for k, _ in box.items()] == ["a", "b"] and len(box.values()) == 2
    assert box.pop("a").shape == (2,) and len(box) == 1
    with pytest.raises(KeyError, match="'b'"):
        box["a"]
