"""state_dict and load_state_dict: all or nothing."""

from collections import OrderedDict

import numpy as np
import pytest

import dtrain
from dtrain import nn
from dtrain.errors import StateDictError
from tests.util import to_numpy


def model(device="cpu"):
    return nn.Sequential(OrderedDict(conv=nn.Linear(4, 3), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 2))).to(device)


def filled(m, value):
    return {key: np.full(tuple(t.shape), value, to_numpy(t).dtype) for key, t in m.state_dict().items()}


def test_round_trip(device):
    a, b = model(device), model(device)
    assert not np.array_equal(to_numpy(a.head.weight), to_numpy(b.head.weight))
    keys = b.load_state_dict(a.state_dict())
    assert repr(keys) == "<All keys matched successfully>" and keys.missing_keys == []
    for x, y in zip(a.state_dict().values(), b.state_dict().values()):
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def test_state_dict_shares_memory_and_is_detached():
    m = model()
    state = m.state_dict()
    assert state["head.weight"]._array is m.head.weight._array and not state["head.weight"].requires_grad
    assert m.state_dict(keep_vars=True)["head.weight"] is m.head.weight
    assert list(m.state_dict(prefix="p."))[0] == "p.conv.weight"
    assert state._metadata["norm"] == {"version": 2}


def test_numpy_arrays_load(device):
    m = model(device)
    m.load_state_dict(filled(m, 2))
    assert all((to_numpy(t) == 2).all() for t in m.state_dict().values())
    frozen = np.full((2, 3), 5, np.float64)
    frozen.flags.writeable = False
    m.load_state_dict({"head.weight": frozen}, strict=False)
    assert (to_numpy(m.head.weight) == 5).all() and m.head.weight.dtype is dtrain.float32
    m.load_state_dict({"head.weight": frozen}, strict=False, assign=True)
    with dtrain.no_grad():
        m.head.weight.zero_()  # a read-only array was copied, so the parameter can be trained
    assert (frozen == 5).all()


def test_all_misfits_at_once_and_nothing_written():
    m = model()
    before = {key: to_numpy(t).copy() for key, t in m.state_dict().items()}
    state = filled(m, 3)
    state["head.wieght"] = state.pop("head.weight")
    state["conv.weight"] = np.ones((4, 4), np.float32)
    state["conv.bias"] = "text"
    del state["norm.running_var"]
    with pytest.raises(StateDictError) as caught:
        m.load_state_dict(state)
    text = str(caught.value)
    assert "unexpected key 'head.wieght' (did you mean 'head.weight'?)" in text
    assert "missing key 'head.weight'" in text and "missing key 'norm.running_var'" in text
    assert "size mismatch for conv.weight: the model has shape (3, 4), the state_dict (4, 4)" in text
    assert "conv.bias: expected a Tensor or an array, got str" in text and "nothing was loaded" in text
    for key, value in before.items():
        np.testing.assert_array_equal(to_numpy(m.state_dict()[key]), value)


def test_not_strict_takes_what_fits_but_no_wrong_shapes():
    m = model()
    state = {**filled(m, 3), "other": np.ones(1)}
    del state["head.bias"]
    keys = m.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["head.bias"] and keys.unexpected_keys == ["other"]
    assert (to_numpy(m.conv.weight) == 3).all()
    with pytest.raises(StateDictError, match="size mismatch"):
        m.load_state_dict({"head.bias": np.ones(5)}, strict=False)


def test_a_wrappers_prefix_is_recognised():
    m = model()
    wrapped = {"module." + key: value for key, value in filled(m, 1).items()}
    with pytest.raises(StateDictError, match="every key of the state_dict begins with 'module.'; strip it"):
        m.load_state_dict(wrapped)
    with pytest.raises(StateDictError, match="every key of the model begins with 'inner.'; add it"):
        nn.Sequential(OrderedDict(inner=m)).load_state_dict(filled(m, 1))


def test_assign_takes_the_tensors_themselves():
    m = nn.Sequential(nn.Linear(3, 2, device="meta"))
    weight = dtrain.ones(2, 3, dtype=dtrain.float64)
    with pytest.raises(StateDictError, match="assign=True"):
        m.load_state_dict({"0.weight": weight, "0.bias": dtrain.zeros(2)})
    m.load_state_dict({"0.weight": weight, "0.bias": dtrain.zeros(2)}, assign=True)
    assert m[0].weight._array is weight._array and m[0].weight.requires_grad and isinstance(m[0].weight, nn.Parameter)


def test_loading_counts_as_a_change():
    m = nn.Linear(2, 2)
    loss = m(dtrain.ones(1, 2).requires_grad_()).sum()
    m.load_state_dict({"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)})
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


def test_batch_norm_without_its_counter():
    m = nn.BatchNorm1d(3)
    state = filled(m, 2)
    del state["num_batches_tracked"]
    assert repr(m.load_state_dict(state)) == "<All keys matched successfully>"


def test_tied_weights():
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    m[1].weight = m[0].weight
    assert len(list(m.parameters())) == 3 and len(m.state_dict()) == 4
    m.load_state_dict(filled(m, 4))
    assert m[1].weight is m[0].weight and (to_numpy(m[0].weight) == 4).all()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(dtrain.ones(2))
        self.seen = 0

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_extra_state():
    a, b = Counting(), Counting()
    a.seen = 5
    assert a.state_dict()["_extra_state"] == {"seen": 5}
    b.load_state_dict(a.state_dict())
    assert b.seen == 5
    with pytest.raises(StateDictError, match="missing key '_extra_state'"):
        b.load_state_dict({"weight": np.ones(2)})
    with pytest.raises(StateDictError, match="unexpected key '_extra_state'"):
        nn.Linear(1, 1).load_state_dict({**filled(nn.Linear(1, 1), 1), "_extra_state": 3})


def test_hooks_on_the_way_out_and_in():
    m = model()
    seen = []
    m.register_state_dict_pre_hook(lambda module, prefix, keep_vars: seen.append(("pre", prefix)))
    m.head.register_state_dict_post_hook(lambda module, state, prefix, metadata: state.__delitem__(prefix + "bias"))
    state = m.state_dict()
    assert seen == [("pre", "")] and "head.bias" not in state
    handle = m.head.register_load_state_dict_pre_hook(lambda module, state, prefix, *rest: state.setdefault(prefix + "bias", dtrain.ones(2)))
    m.load_state_dict(state)
    assert (to_numpy(m.head.bias) == 1).all()
    handle.remove()
    with pytest.raises(StateDictError, match="head.bias"):
        m.load_state_dict(state)


def test_post_hooks_may_forgive_keys_and_a_failure_is_undone():
    m = model()
    state = {key: value for key, value in filled(m, 9).items() if key != "head.bias"}
    handle = m.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
    m.load_state_dict(state)
    assert (to_numpy(m.conv.weight) == 9).all()
    handle.remove()
    m.register_load_state_dict_post_hook(lambda module, keys: None)
    before = to_numpy(m.conv.weight)
    with pytest.raises(StateDictError, match="missing key 'head.bias'"):
        m.load_state_dict({key: value * 0 for key, value in state.items()})
    np.testing.assert_array_equal(to_numpy(m.conv.weight), before)


def test_modules_may_load_in_their_own_way():
    class Renaming(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *rest):
            if prefix + "w" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, *rest)

    m = nn.Sequential(Renaming(2, 2))
    m.load_state_dict({"0.w": np.ones((2, 2)), "0.bias": np.zeros(2)})
    assert (to_numpy(m[0].weight) == 1).all()


def test_not_a_dict():
    with pytest.raises(TypeError, match="expects a dict"):
        nn.Linear(1, 1).load_state_dict([1])
