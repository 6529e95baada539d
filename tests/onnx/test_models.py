"""Whole models in onnxruntime: the examples' own, at sizes they were not exported at."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import dtrain
import dtrain.onnx
from dtrain import nn
from dtrain.backend import namespace
from dtrain.nn import functional as F
from tests.onnx.util import compare, run, session
from tests.util import to_numpy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(path: str):
    """An example's module; it stays in sys.modules, where dataclasses look for it."""
    name = "onnx_test_" + Path(path).stem
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokens(batch: int, time: int) -> np.ndarray:
    return np.random.default_rng(batch * time).integers(0, 256, (batch, time))


@pytest.fixture(scope="module")
def gpt():
    module = example("gpt/model.py")
    dtrain.manual_seed(0)
    model = module.GPT(module.Config(context=32, layers=3, width=64)).eval()
    for p in model.parameters():
        p.data.mul_(1.5)  # logits of the size of trained ones
    return model


DYNAMIC = {"tokens": {0: "batch", 1: "time"}}
NAMES = {"input_names": ["tokens"], "output_names": ["logits"]}


@pytest.mark.parametrize("at", [(1, 32), (2, 8), (1, 1)])  # a batch of one, the full context and a length of 1 are what people pass
def test_gpt_at_any_batch_and_length(gpt, at, tmp_path):
    path = str(tmp_path / "model.onnx")
    dtrain.onnx.export(gpt, dtrain.tensor(tokens(*at)), path, dynamic_axes=DYNAMIC, **NAMES)
    model = session(path)
    for batch, time in ((1, 1), (1, 32), (3, 7), (2, 8), (5, 32), (4, 1)):
        compare(gpt, model, [tokens(batch, time)], 1e-4)


def test_gpt_file(gpt):
    proto = dtrain.onnx.export(gpt, dtrain.tensor(tokens(2, 8)), dynamic_axes={**DYNAMIC, "logits": {1: "time"}}, **NAMES)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 10 and [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*proto.graph.input, *proto.graph.output)]
    assert sizes == [["batch", "time"], ["logits_0", "time", 256]]
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    for name, p in gpt.named_parameters():
        np.testing.assert_array_equal(stored[name], to_numpy(p))
    numbers = sum(p.numel() for p in gpt.parameters())
    assert sum(a.size for a in stored.values()) < numbers + 100, "weights are stored once"
    nodes = [(n.op_type, tuple(n.input), str(n.attribute)) for n in proto.graph.node]
    assert len(set(nodes)) == len(nodes), "nothing is computed twice"


def test_gpt_of_fixed_sizes(gpt):
    model = session(dtrain.onnx.export(gpt, dtrain.tensor(tokens(2, 8))))
    assert model.get_inputs()[0].shape == [2, 8]
    compare(gpt, model, [tokens(2, 8)], 1e-4)


def test_digits_cnn():
    module = example("digits_cnn.py")
    dtrain.manual_seed(0)
    model = module.make_model().eval()
    images = module.datasets()[1].tensors[0].numpy()
    exported = session(dtrain.onnx.export(model, dtrain.tensor(images[:1]), dynamic_axes={"input": {0: "batch"}}))
    for batch in (1, 2, 33):
        assert compare(model, exported, [images[:batch]], 1e-5) < 1e-5


def test_mlp(device):
    dtrain.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1)).to(device).eval()
    exported = session(dtrain.onnx.export(lambda x: model(x).cpu(), dtrain.randn(4, 8, device=device), dynamic_axes={"input": [0]}))
    on_cpu = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1)).eval()
    on_cpu.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    for batch in (1, 7):
        compare(on_cpu, exported, [np.random.default_rng(batch).standard_normal((batch, 8)).astype(np.float32)])


def test_half_precision_weights():
    dtrain.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 1)).half().eval()
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float16)
    exported = session(dtrain.onnx.export(model, dtrain.tensor(x), dynamic_axes={"input": [0]}))
    compare(model, exported, [x[:2]], 2e-3)


class Rotary(nn.Module):
    """A model that makes its tables when it first meets a length, and keeps what it last computed."""

    def __init__(self) -> None:
        super().__init__()
        self.cos = dtrain.zeros(0, 4)
        self.seen = None

    def forward(self, x):
        time = x.shape[1]
        if time > self.cos.shape[0]:
            angles = dtrain.outer(dtrain.arange(time).float(), dtrain.tensor([1.0, 0.1, 0.01, 0.001]))
            self.cos, self.sin = angles.cos(), angles.sin()
        turned = dtrain.cat([-x[..., 2:], x[..., :2]], -1)
        self.seen = x * self.cos[:time] + turned * self.sin[:time]
        return self.seen


def test_tables_made_at_first_use():
    model = Rotary()
    exported = session(dtrain.onnx.export(model, dtrain.randn(2, 16, 4), dynamic_axes={"input": {0: "b", 1: "t"}}))
    for batch, time in ((1, 1), (3, 9), (2, 16)):
        compare(model, exported, [np.random.default_rng(0).standard_normal((batch, time, 4)).astype(np.float32)])


@pytest.mark.parametrize("axes", [[], [1]])
def test_export_leaves_model_and_inputs_as_they_were(axes):
    model, x = Rotary(), dtrain.randn(2, 16, 4)
    before = x.clone()
    dtrain.onnx.export(lambda x: model(x.mul_(2)), x, dynamic_axes={"input": axes})
    assert dtrain.equal(x, before) and type(x) is dtrain.Tensor
    assert type(model.seen) is dtrain.Tensor and model.seen.sum().item() == model.seen.sum().item()
    assert not vars(model.seen)


def test_outputs_in_tuples_and_dicts():
    proto = dtrain.onnx.export(lambda x, y: {"sum": x + y, "rest": (x, [y * 2])}, (dtrain.ones(2), dtrain.ones(2)), input_names=["x", "y"])
    assert [o.name for o in proto.graph.output] == ["output_0", "output_1", "output_2"]
    found = session(proto).run(None, {"x": np.float32([1, 2]), "y": np.float32([3, 4])})
    assert [f.tolist() for f in found] == [[4, 6], [1, 2], [6, 8]]


def test_names_of_weights_and_nodes_never_meet_those_of_inputs():
    model = nn.Linear(2, 2)
    proto = dtrain.onnx.export(lambda add_1: model(add_1 + 1), dtrain.ones(1, 2), input_names=["add_1"], output_names=["gemm_1"])
    assert session(proto).run(None, {"add_1": np.ones((1, 2), np.float32)})[0].shape == (1, 2)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(dtrain.ones(2))

        def forward(self, x):
            return x + self.x

    proto = dtrain.onnx.export(Named(), dtrain.ones(2), input_names=["x"])
    assert session(proto).run(None, {"x": np.float32([1, 2])})[0].tolist() == [2, 3]


def test_operations_on_weights_alone_are_done_at_export():
    weight, x = dtrain.randn(3, 4), dtrain.ones(2, 4)
    proto = dtrain.onnx.export(lambda x: F.linear(x, weight / weight.norm(dim=1, keepdim=True)), x)
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "Identity"]


def test_to_an_open_file_and_in_words(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        dtrain.onnx.export(lambda x: x + 1, dtrain.ones(2), file, verbose=True)
    assert session(str(path)).run(None, {"input": np.zeros(2, np.float32)})[0].tolist() == [1, 1]
    assert "Add" in capsys.readouterr().out


def test_a_batch_of_one_is_no_special_case():
    model = session(dtrain.onnx.export(lambda x: x.squeeze() + 1, dtrain.ones(1, 3, 1), dynamic_axes={"input": {0: "batch"}}))
    assert run(model, [np.ones((1, 3, 1), np.float32)])[0].shape == (1, 3)
    compare(lambda x: x.squeeze() + 1, model, [np.ones((4, 3, 1), np.float32)])


def up_to_difference(x):
    part = x[:, : x.shape[0] - x.shape[1] + 3]
    return part * part.shape[1]


def padded(x):
    whole = dtrain.cat([x, dtrain.zeros(x.shape[0], -x.shape[1] % 8)], 1)
    return whole * whole.shape[1]


@pytest.mark.parametrize("fn, at", [(up_to_difference, (6, 6)), (padded, (2, 6))])
def test_sizes_that_hardly_change(fn, at):
    model = session(dtrain.onnx.export(fn, dtrain.randn(*at), dynamic_axes={"input": {0: "b", 1: "t"}}))
    for shape in ((8, 6), (6, 6), (12, 9)):
        compare(fn, model, [np.random.default_rng(0).standard_normal(shape).astype(np.float32)])


def test_a_model_that_takes_no_other_values():
    table = dtrain.randn(3, 2)
    model = session(dtrain.onnx.export(lambda i: F.embedding(i - 5, table), dtrain.full((2, 4), 5), dynamic_axes={"input": [0, 1]}))
    compare(lambda i: F.embedding(i - 5, table), model, [np.int64([[5, 6, 7]])])


def test_inside_autocast():
    w, x = dtrain.randn(4, 4), dtrain.randn(2, 4)
    with dtrain.autocast("cpu"):
        proto = dtrain.onnx.export(lambda x: (x @ w).float(), x)
        expected = (x @ w).float()
    np.testing.assert_allclose(run(session(proto), [x.numpy()])[0], expected.numpy(), 1e-2)
    assert not np.allclose(expected.numpy(), x.numpy() @ w.numpy(), 1e-5)
    assert onnx.TensorProto.BFLOAT16 in {i.data_type for i in proto.graph.initializer}


def test_uninitialised_memory_does_not_get_into_the_file(monkeypatch):
    monkeypatch.setattr(namespace.numpy, "empty", lambda shape, dtype=None: np.full(shape, 7, dtype))
    proto = dtrain.onnx.export(lambda x: x + dtrain.empty(5), dtrain.zeros(5))
    assert run(session(proto), [np.zeros(5, np.float32)])[0].tolist() == [0] * 5
