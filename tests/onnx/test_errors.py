"""What cannot be exported is refused in words, and nothing half-written is left."""

from __future__ import annotations

import math
import os
import sys
from typing import Any, Callable

import numpy as np
import pytest

import dtrain
import dtrain.onnx
from dtrain import nn
from dtrain.errors import ArgumentError, UnsupportedError
from dtrain.nn import functional as F
from tests.onnx.util import session

DYNAMIC = {"input": {0: "b", 1: "t"}}


def export(fn: Callable, *, axes: Any = DYNAMIC, x: Any = None, **options: Any) -> Any:
    return dtrain.onnx.export(fn, dtrain.randn(4, 6) if x is None else x, dynamic_axes=axes, **options)


def deeper(x: Any) -> Any:
    for _ in range(x.shape[1]):
        x = x + 1
    return x


def by_length(x: Any) -> Any:
    return x.exp() if x.shape[1] > 4 else x.log()


def kept(cache: dict) -> Callable:
    """A table for every length: it is no table of the next length."""

    def model(x: Any) -> Any:
        if x.shape[1] not in cache:
            cache[int(x.shape[1])] = dtrain.from_numpy(np.arange(x.shape[1], dtype=np.float32))
        return x + cache[int(x.shape[1])]

    return model


def stale(x: Any) -> Any:
    y = x + 1
    row = y[0]
    y.add_(1)
    return y + row


def into_view(x: Any) -> Any:
    y = x + 1
    y[0] = 0.0
    return y


REFUSED = {
    "a choice by size": (by_length, "control flow depends"),
    "a loop over a size": (deeper, "control flow depends"),
    "a loop that only ends sooner": (lambda x: [x + 1 for _ in range(20 - x.shape[1])][-1], "control flow depends|ends after"),
    "outputs as many as rows": (lambda x: tuple([x] * x.shape[0]), "outputs"),
    "a choice by value": (lambda x: x if x.sum() > 0 else -x, r"bool\(\)"),
    "item": (lambda x: x * x.max().item(), r"item\(\)"),
    "float": (lambda x: x * float(x.max()), r"float\(\)"),
    "index": (lambda x: x[:, x.long().argmax() % 2], "index"),
    "tolist": (lambda x: x + dtrain.tensor(x.tolist()), r"tolist\(\)"),
    "numpy": (lambda x: x + dtrain.from_numpy(np.sort(x.numpy())), "NumPy"),
    "array": (lambda x: x + dtrain.from_numpy(np.sort(x)), "NumPy"),
    "dlpack": (lambda x: x + dtrain.from_dlpack(x), "DLPack|leave"),
    "values behind our back": (lambda x: x * dtrain.tensor(float(x._array.sum())), "no result of traced"),
    "a number behind our back": (lambda x: x * float(x._array.sum()), "takes the number"),
    "random numbers": (lambda x: x + dtrain.randn(1), "random"),
    "a rounded size": (lambda x: x[:, : math.ceil(x.shape[1] / 4)], "cannot tell"),
    "a size through NumPy": (lambda x: x.reshape(int(np.prod(x.shape))), "cannot tell"),
    "a root of a size": (lambda x: x / math.sqrt(x.shape[1]), "takes the number"),
    "a table through NumPy": (lambda x: x + dtrain.from_numpy(np.arange(x.shape[1], dtype=np.float32)), "outside dtrain's operations"),
    "a table of each length": (kept({}), "no result of traced|differs"),
    "len": (lambda x: x.reshape(len(x) * 3, -1), "cannot tell"),
    "the lesser of two sizes": (lambda x: x[:, : min(x.shape[1], 4)], "cannot tell"),
    "a write into a view": (into_view, "writes into a view"),
    "a write into a named view": (lambda x: (x + 1).view(-1).mul_(2), "writes into a view .made by reshape"),
    "a view of what was written": (stale, "written to"),
    "an alias of what was written": (lambda x: (x.detach().add_(1), x)[1] * 2, "written to"),
    "an output that was written": (lambda x: (x[0], x.add_(1))[0], "the output reads"),
    "no ONNX form": (lambda x: F.cross_entropy(x, x.argmax(1)), r"CrossEntropy \(shapes .*\) has no ONNX form here; export knows Abs, Acos"),
    "a mask among indices": (lambda x: x[x[:, 0] > -99, x[0, :1].long() * 0], "bool mask beside"),
    "dropout": (lambda x: F.dropout(x, 0.5), r"Call eval\(\)|random"),
    "the batch's statistics": (lambda x: F.batch_norm(x, None, None, training=True), r"Call eval\(\)"),
    "an output that is no tensor": (lambda x: (x, x.shape), "expected tensors"),
    "a size that does not fit": (lambda x: x + dtrain.ones(4, 6), "runs at the example's sizes .* but at none of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    fn, words = REFUSED[name]
    with pytest.raises(UnsupportedError, match=words):
        export(fn, f=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["values behind our back", "a number behind our back", "random numbers", "a choice by value"])
def test_refused_without_dynamic_axes(name):
    fn, words = REFUSED[name]
    with pytest.raises(UnsupportedError, match=words):
        export(fn, axes=None)


def test_the_error_comes_from_the_models_own_line():
    with pytest.raises(UnsupportedError) as caught:
        export(by_length)
    assert any(entry.name == "by_length" for entry in caught.traceback)


def test_a_model_that_writes_its_state_is_refused_and_unchanged():
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnsupportedError, match=r"1\.num_batches_tracked in place .*eval"):
        export(model, axes={"input": {0: "b"}})
    with pytest.raises(UnsupportedError, match=r"buffers \['running_mean', 'running_var'\].*eval"):
        norm = nn.InstanceNorm1d(3, track_running_stats=True)
        norm.num_batches_tracked = None
        export(norm, x=dtrain.randn(2, 3, 5), axes=None)
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert all(dtrain.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_mode_is_refused():
    with pytest.raises(UnsupportedError, match="eval"):
        export(nn.Dropout(0.5))
    q = dtrain.randn(2, 2, 4, 4)
    with pytest.raises(UnsupportedError, match="eval|random"):
        export(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5), x=q)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"axes": {"inptu": {0: "b"}}}, r"\['inptu'\], which are no inputs or outputs; inputs are \['input'\], outputs \['output'\]"),
        ({"axes": {"inptu": {0: "b"}}, "output_names": ["y"]}, r"inputs are \['input'\], outputs \['y'\]"),
        ({"axes": {"input": {2: "b"}}}, r"'input' has no axis 2; its shape is \(4, 6\)"),
        ({"axes": {"input": ["batch"]}}, "'input' has no axis 'batch'"),
        ({"axes": {"input": {0: "b", 1: "b"}}}, "axes of sizes 4 and 6 both 'b'"),
        ({"axes": {"input": {0: "b"}, "output": {1: "t"}}}, "axis 1 of 'output' has size 6 whatever"),
        ({"axes": {"input": {0: "b"}, "output": {5: "t"}}}, "'output' has no axis 5"),
        ({"input_names": ["a", "b"]}, "do not name the model's 1 inputs"),
        ({"output_names": ["a", "a"]}, "do not name the model's 1 outputs"),
        ({"output_names": ["input"]}, "name inputs and outputs"),
        ({"opset_version": 7}, "opset_version 7 is not supported; expected 18 to 23"),
        ({"x": [1, 2]}, "a Tensor or a tuple of Tensors"),
        ({"x": dtrain.ones(0, 6)}, "without empty dynamic axes; 'b' has size 0"),
    ],
)
def test_arguments(options, words, tmp_path):
    with pytest.raises(ArgumentError, match=words):
        export(lambda x: x + 1, f=tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_options_that_would_be_ignored():
    for option in ("export_params", "do_constant_folding"):
        with pytest.raises(UnsupportedError, match="leave them at True"):
            export(lambda x: x, **{option: False})


def test_dtypes_onnx_has_not():
    with pytest.raises(UnsupportedError, match="input has dtype dtrain.complex64"):
        export(lambda x: x, x=dtrain.ones(2, 2, dtype=dtrain.complex64), axes=None)


def test_errors_of_the_model_itself_are_its_own():
    with pytest.raises(dtrain.errors.ShapeError, match="linear"):
        export(nn.Linear(5, 2))


@pytest.mark.parametrize("broken", ["check", "write", "rename"])
def test_a_failed_export_leaves_the_old_file(broken, tmp_path, monkeypatch):
    import onnx

    path = tmp_path / "m.onnx"
    export(lambda x: x + 1, f=path)
    before = path.read_bytes()

    def fails(*args, **kwargs):
        raise OSError("the disk is full")

    where, name = {"check": (onnx.checker, "check_model"), "write": (os, "fsync"), "rename": (os, "replace")}[broken]
    monkeypatch.setattr(where, name, fails)
    with pytest.raises(OSError, match="disk is full"):
        export(lambda x: x + 2, f=path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert session(str(path)).get_inputs()[0].shape == ["b", "t"]


def test_onnx_not_installed(monkeypatch):
    for name in ("dtrain.onnx.convert", "dtrain.onnx.graph"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'dtrain\[onnx\]'"):
        export(lambda x: x)
