"""Tensors, models and real groups in checkpoints."""

import numpy as np
import pytest

import dtrain
from dtrain.data import TokenDataset, TokenLoader, write_shards
from dtrain.distributed.checkpoint import load, save
from dtrain.errors import CheckpointError, DtrainError


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_tensors_come_back_as_tensors(tmp_path, dtype, shape, device):
    t = dtrain.ones(shape, dtype=getattr(dtrain, dtype), device=device)
    save({"t": t, "a": np.ones(2)}, tmp_path, 1)
    found = load(tmp_path).state
    assert type(found["t"]) is dtrain.Tensor and type(found["a"]) is np.ndarray
    assert found["t"].dtype is t.dtype and found["t"].shape == shape and found["t"].device.type == "cpu"
    assert bool((found["t"] == t.cpu()).all()) and not found["t"].requires_grad


def test_parameters_views_and_ties(tmp_path):
    w = dtrain.arange(12.0).reshape(3, 4).requires_grad_()
    save({"m": {"w": w, "row": w[1], "t": w.T, "tied": w}}, tmp_path, 1)
    found = load(tmp_path).state["m"]
    assert found["t"].tolist() == w.T.tolist() and found["row"].tolist() == [4, 5, 6, 7] and found["tied"].tolist() == w.tolist()


def test_a_tensor_without_data(tmp_path):
    with pytest.raises(DtrainError, match="meta"):
        save({"w": dtrain.empty(3, device="meta")}, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_module_and_its_optimizer(tmp_path):
    """Training that is saved, loaded into new objects and continued ends bit for bit where straight training does."""
    def make():
        dtrain.manual_seed(0)
        model = dtrain.nn.Sequential(dtrain.nn.Linear(4, 8), dtrain.nn.Linear(8, 1))
        return model, dtrain.optim.AdamW(model.parameters(), lr=0.01)

    def step(model, optimizer, i):
        x = dtrain.full((2, 4), float(i))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    straight = make()
    for i in range(6):
        step(*straight, i)
        if i == 2:
            save({"model": straight[0].state_dict(), "optimizer": straight[1].state_dict()}, tmp_path, i)
    resumed = make()
    found = load(tmp_path).state
    resumed[0].load_state_dict(found["model"])
    resumed[1].load_state_dict(found["optimizer"])
    for i in range(3, 6):
        step(*resumed, i)
    for name, value in straight[0].state_dict().items():
        assert np.array_equal(value.numpy(), resumed[0].state_dict()[name].numpy())


def test_a_token_loader_resumes_from_a_checkpoint(tmp_path):
    write_shards([bytes(range(200))], tmp_path / "data")
    data = TokenDataset(tmp_path / "data")
    loader = TokenLoader(data, 4, 8)
    batches = [batch for _, batch in zip(range(9), loader.forever())]
    halfway, again = TokenLoader(data, 4, 8), TokenLoader(data, 4, 8, 1, 2)
    for _ in zip(range(5), halfway.forever()):
        save({"loader": halfway.state_dict()}, tmp_path / "run", 1)
    again.load_state_dict(load(tmp_path / "run").state["loader"])
    x, y = next(again.forever())
    assert type(x) is dtrain.Tensor and x.dtype is dtrain.int64
    assert x.tolist() == batches[5][0][2:].tolist() and y.tolist() == batches[5][1][2:].tolist()


def test_ranks_of_a_real_group(tmp_path):
    from dtrain.comm.threads import run_threads

    def work(group):
        save({"w": dtrain.ones(3)}, tmp_path, 1, group, per_rank={"rank": group.rank})
        return load(tmp_path, group=group).per_rank["rank"]

    assert run_threads(work, 3) == [0, 1, 2]


def test_one_rank_that_fails_in_a_real_group(tmp_path):
    from dtrain.comm.threads import run_threads

    def work(group):
        try:
            save({}, tmp_path, 1, group, per_rank={"x": open} if group.rank == 1 else {})
        except CheckpointError as e:
            return str(e)

    assert all("failed on rank 1" in text for text in run_threads(work, 2))
