"""Names of PyTorch that are not built say so; names that are built are not on the list; typing errors get a hint."""

import importlib

import pytest

import dtrain
from dtrain.absent import NAMES


@pytest.mark.parametrize("module", NAMES)
def test_the_list_holds_only_what_is_absent(module):
    home = importlib.import_module(module)
    built = []
    for name in NAMES[module].split():
        try:
            getattr(home, name)
            built.append(name)
        except AttributeError as error:
            assert "not built yet" in str(error), name
    assert not built


def test_hints():
    with pytest.raises(AttributeError, match="did you mean dtrain.relu"):
        dtrain.rellu
    with pytest.raises(AttributeError, match="did you mean dtrain.nn.Linear"):
        dtrain.nn.Liner
    assert not hasattr(dtrain.nn, "LSTM") and getattr(dtrain.optim, "RMSprop", None) is None
