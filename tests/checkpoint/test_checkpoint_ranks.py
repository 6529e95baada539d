"""Several ranks: one checkpoint, failures shared, and any number of ranks may load it."""

import os
import warnings

import numpy as np
import pytest

from dtrain.distributed.checkpoint import Checkpointer, load, save
from dtrain.errors import CheckpointError
from tests.checkpoint.states import on_ranks, same, small_state


def own(rank):
    return {"seed": np.arange(rank, rank + 3), "rank": rank}


def save_on(size, directory, step=1):
    return on_ranks(size, lambda g: save(small_state(step), directory, step, g, per_rank=own(g.rank)))


def test_each_rank_gets_its_own_part_back(tmp_path):
    assert save_on(4, tmp_path) == [str(tmp_path / "step-00000001")] * 4
    assert len([f for f in os.listdir(tmp_path / "step-00000001") if f.startswith("rank-")]) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = on_ranks(4, lambda g: load(tmp_path, group=g))
    assert all(same(c.state, small_state(1)) and same(c.per_rank, own(r)) for r, c in enumerate(loaded))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_another_number_of_ranks(tmp_path, size):
    save_on(3, tmp_path)
    with pytest.warns(UserWarning, match=f"saved by 3 ranks and is loaded on {size}: .* seed anew"):
        loaded = on_ranks(size, lambda g: load(tmp_path, group=g))
    assert all(same(c.state, small_state(1)) and c.per_rank is None and c.world_size == 3 and c.reseed for c in loaded)


def test_nothing_is_said_where_ranks_saved_nothing(tmp_path):
    on_ranks(3, lambda g: save(small_state(1), tmp_path, 1, g))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path).per_rank is None


@pytest.mark.parametrize("bad", [0, 2])
def test_a_failure_on_one_rank_is_an_error_on_all(tmp_path, bad):
    save_on(3, tmp_path)
    broken = {"x": object()}
    results = on_ranks(3, lambda g: save(small_state(2), tmp_path, 2, g, per_rank=broken if g.rank == bad else own(g.rank)))
    assert all(isinstance(e, CheckpointError) and f"failed on rank {bad}: state['x'] is a" in str(e) for e in results)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_a_folder_that_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("dtrain.distributed.checkpoint.saving.SHARED_WAIT", 0.1)

    def work(group):
        return save({}, tmp_path / f"disk-of-{group.rank}", 1, group)

    results = on_ranks(2, work)
    assert all("failed on rank 1" in str(e) and "file system that all ranks share" in str(e) for e in results)
    assert not os.path.exists(tmp_path / "disk-of-1") and os.listdir(tmp_path / "disk-of-0") == []


def test_damage_that_one_rank_sees_moves_all_to_an_older_one(tmp_path):
    save_on(3, tmp_path, 1)
    save_on(3, tmp_path, 2)
    path = tmp_path / "step-00000002" / "rank-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="step 2: .* failed on rank 1: .*rank-00001.safetensors: tensor 'seed' is damaged"):
        loaded = on_ranks(3, lambda g: load(tmp_path, group=g))
    assert [c.step for c in loaded] == [1, 1, 1]
    with pytest.warns(UserWarning, match="rank-00001.safetensors is damaged"), pytest.warns(UserWarning, match="seed anew"):
        assert load(tmp_path).step == 1
    results = on_ranks(3, lambda g: load(tmp_path, 2, g))
    assert all(isinstance(e, CheckpointError) for e in results)


def test_a_missing_part_of_a_rank_is_seen_by_all(tmp_path):
    save_on(3, tmp_path)
    (tmp_path / "step-00000001" / "rank-00002.safetensors").unlink()
    results = on_ranks(3, lambda g: load(tmp_path, 1, g))
    assert all("rank-00002.safetensors is missing" in str(e) for e in results)


def test_checkpointer_on_ranks(tmp_path):
    def work(group):
        keeper = Checkpointer(tmp_path, every=2, keep=1, group=group)
        first = keeper.resume()
        for step in range(1, 6):
            keeper.maybe_save(step, lambda: small_state(step), lambda: own(group.rank))
        return first, keeper.resume().step, keeper.resume().per_rank["rank"]

    assert on_ranks(3, work) == [(None, 4, 0), (None, 4, 1), (None, 4, 2)]
