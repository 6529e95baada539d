"""Damage of every kind is noticed and named, and an older checkpoint is used instead."""

import os
import random
import shutil
import warnings

import numpy as np
import pytest

from dtrain import files
from dtrain.distributed.checkpoint import Checkpointer, latest, load, save
from dtrain.errors import CheckpointError
from tests.checkpoint.states import same, small_state


@pytest.fixture
def folder(tmp_path):
    save(small_state(1), tmp_path, 1)
    save(small_state(2), tmp_path, 2, per_rank={"seed": np.arange(3)})
    return tmp_path / "step-00000002"


def assert_noticed(folder, message=None):
    """Step 2 is refused with ``message``, and loading goes on with step 1."""
    with pytest.raises(CheckpointError, match=message):
        load(folder.parent, 2)
    with pytest.warns(UserWarning, match="skipping the checkpoint of step 2"):
        assert load(folder.parent).step == 1


def test_every_truncation(folder):
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=path.name):
                load(folder.parent, 2)
        with pytest.warns(UserWarning, match=f"step 2: .*{path.name}"):
            assert latest(folder.parent) == 1
        path.write_bytes(whole)
    assert load(folder.parent).step == 2


def test_every_kind_of_flipped_bit(folder):
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for bit in rng.sample(range(8 * len(whole)), 150):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(CheckpointError, match=path.name):
                load(folder.parent, 2)
        path.write_bytes(whole)
    assert same(load(folder.parent).state, small_state(2))


def change(path, edit):
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)


def test_a_flipped_value_names_its_tensor(folder):
    raw = small_state(2)["model"]["b"].tobytes()
    change(folder / "model.safetensors", lambda d: d.__setitem__(d.index(raw), d[d.index(raw)] ^ 4))
    assert_noticed(folder, "model.safetensors: tensor 'b' is damaged")
    assert load(folder.parent, 2, verify=False).step == 2
    assert latest(folder.parent) == 2
    with pytest.warns(UserWarning, match="model.safetensors is damaged"):
        assert latest(folder.parent, verify=True) == 1


def test_appended_and_missing(folder):
    change(folder / "model.safetensors", lambda d: d.append(0))
    assert_noticed(folder, "model.safetensors is longer than it was: it has")
    (folder / "model.safetensors").unlink()
    assert_noticed(folder, "model.safetensors is missing")
    (folder / "manifest.json").unlink()
    assert_noticed(folder, "manifest.json is missing")


@pytest.mark.parametrize("name, message", [
    ("model.safetensors", r"model.safetensors: its header .* another checkpoint \(it says: step 1\)"),
    ("manifest.json", "manifest.json is of step 1, not 2"),
])
def test_a_file_of_another_checkpoint(folder, name, message):
    shutil.copy(folder.parent / "step-00000001" / name, folder / name)
    assert_noticed(folder, message)


def test_files_swapped_within_a_checkpoint(tmp_path):
    save(small_state(), tmp_path, 1)
    twins = {"a": {"w": np.zeros(4)}, "b": {"w": np.ones(4)}}
    folder = tmp_path / os.path.basename(save(twins, tmp_path, 2))
    os.rename(folder / "a.safetensors", folder / "x")
    os.rename(folder / "b.safetensors", folder / "a.safetensors")
    os.rename(folder / "x", folder / "b.safetensors")
    assert_noticed(folder, "tensor 'w' is damaged")


def test_links_are_refused(folder):
    target = folder.parent / "elsewhere"
    os.rename(folder / "model.safetensors", target)
    os.symlink(target, folder / "model.safetensors")
    assert_noticed(folder, "symbolic link")
    (folder / "model.safetensors").unlink()
    os.link(target, folder / "model.safetensors")
    assert_noticed(folder, "2 hard links")


def reseal(folder, edit):
    path = folder / "manifest.json"
    body = files.unseal(path.read_bytes(), "")
    edit(body)
    path.write_bytes(files.seal(body))


def tensor(body, **fields):
    body["replicated"]["tensors"][0].update(fields)


@pytest.mark.parametrize("edit", [
    lambda b: b.update(format="x"), lambda b: b.update(version=9), lambda b: b.pop("files"), lambda b: b.update(world_size=3),
    lambda b: b.update(replicated=None), lambda b: b.update(ranks=[5]), lambda b: b.update(step="2"),
    lambda b: b["files"].update({"../x": b["files"]["model.safetensors"]}), lambda b: b["files"].update({"/etc/passwd": b["files"]["model.safetensors"]}),
    lambda b: b["files"]["model.safetensors"].update(header=-1), lambda b: b["files"]["model.safetensors"].update(header=1 << 60),
    lambda b: tensor(b, shape=[1 << 40]), lambda b: tensor(b, shape=[-3, -4]), lambda b: tensor(b, offset=8), lambda b: tensor(b, offset=-8),
    lambda b: tensor(b, dtype="O"), lambda b: tensor(b, dtype="object"), lambda b: tensor(b, dtype=["f4"]), lambda b: tensor(b, file="../../x"),
    lambda b: tensor(b, crc32c=None), lambda b: tensor(b, shape=None), lambda b: b["replicated"]["tensors"].pop(),
    lambda b: b["replicated"].update(state={"!": "evil", "v": []}), lambda b: b["replicated"].update(state={"!": "array", "i": 99}),
    lambda b: b["replicated"].update(state={"!": "dict", "v": [1]}), lambda b: b["replicated"].update(state={"!": "set", "v": [[1]]}),
    lambda b: b["replicated"].update(state={"!": "scalar", "v": "00", "dtype": "O"}), lambda b: b["replicated"].update(state={"!": "bytes", "v": 3}),
])
def test_a_forged_manifest_is_an_error_not_a_crash(folder, edit):
    reseal(folder, edit)
    assert_noticed(folder)


def test_all_damaged_says_why_for_each(folder):
    for step in (1, 2):
        change(folder.parent / f"step-0000000{step}" / "model.safetensors", lambda d: d.pop())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError, match=r"(?s)can be loaded\n.*step-00000002.*truncated.*\n.*step-00000001.*truncated"):
            load(folder.parent)
        with pytest.raises(CheckpointError):
            Checkpointer(folder.parent).resume()
        assert latest(folder.parent) is None


def test_the_older_state_is_the_older_one(folder):
    change(folder / "optimizer.safetensors", lambda d: d.pop())
    with pytest.warns(UserWarning):
        assert same(load(folder.parent).state, small_state(1))
