"""A save that is killed or fails at any system call leaves the older checkpoints whole and is swept up by the next."""

import errno
import os
import signal
import warnings

import pytest

from dtrain import files
from dtrain.distributed.checkpoint import Checkpointer, latest, load, save
from dtrain.errors import CheckpointError
from tests.checkpoint.states import same, small_state

CALLS = ("mkdir", "open", "write", "fsync", "rename", "rmdir", "unlink", "close")


def on_call(monkeypatch, names, action):
    """Call ``action(count, name)`` before the count-th of the ``os`` functions ``names``."""
    count = 0

    def wrap(name, original):
        def called(*args, **kwargs):
            nonlocal count
            count += 1
            action(count, name)
            return original(*args, **kwargs)
        return called

    for name in names:
        monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))


def in_child(work):
    """Run ``work`` in a forked child; returns the signal that killed it, or 0 if it ended by itself."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(k, work):
    """Run ``work`` in a child that is killed by -9 just before its k-th system call of CALLS; False if it came that far."""
    def child():
        with pytest.MonkeyPatch.context() as patch:
            on_call(patch, CALLS, lambda count, name: count == k and os.kill(os.getpid(), signal.SIGKILL))
            work()

    return in_child(child) == signal.SIGKILL


def loads_one_of(directory, *expected):
    """The newest checkpoint is loadable, without a warning, and is one of ``expected``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load(directory)
    assert any(found.step == step and same(found.state, state) for step, state in expected)
    return found.step


def test_kill_at_every_system_call_of_a_save(tmp_path):
    save(small_state(1), tmp_path, 1)
    seen, k = [], 0
    while True:
        k += 1
        killed = killed_at(k, lambda: save(small_state(2), tmp_path, 2, keep=1))
        seen.append(loads_one_of(tmp_path, (1, small_state(1)), (2, small_state(2))))
        if not killed:
            break
        save(small_state(1), tmp_path, 1)                  # sweeps what was left, and is allowed to
        if os.path.exists(tmp_path / "step-00000002"):
            in_child(lambda: __import__("shutil").rmtree(tmp_path / "step-00000002"))
        assert os.listdir(tmp_path) == ["step-00000001"]
    assert k > 30 and seen == sorted(seen) and set(seen) == {1, 2}
    assert os.listdir(tmp_path) == ["step-00000002"]


def test_kill_while_replacing_the_only_checkpoint(tmp_path):
    save(small_state(1), tmp_path, 5)
    if not exchange_works(tmp_path):
        return
    k, killed = 0, True
    while killed:
        k += 1
        killed = killed_at(k, lambda: save(small_state(2), tmp_path, 5))
        loads_one_of(tmp_path, (5, small_state(1)), (5, small_state(2)))
        if killed:
            save(small_state(1), tmp_path, 5)
    assert k > 30 and same(load(tmp_path).state, small_state(2)) and os.listdir(tmp_path) == ["step-00000005"]


def exchange_works(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    works = files.exchange(tmp_path / "x", tmp_path / "y")
    (tmp_path / "x").rmdir()
    (tmp_path / "y").rmdir()
    return works


def test_replacing_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "exchange", lambda a, b: False)
    for seed in (1, 2):
        save(small_state(seed), tmp_path, 5)
    assert same(load(tmp_path).state, small_state(2)) and os.listdir(tmp_path) == ["step-00000005"]


def fail(code, at, of):
    """An action that fails with errno ``code`` at the ``at``-th call of those in ``of``."""
    seen = [0]

    def action(count, name):
        if name in of:
            seen[0] += 1
            if seen[0] == at:
                raise OSError(code, os.strerror(code))
    return action


@pytest.mark.parametrize("step", [1, 2])                   # 1: a checkpoint of that step is already there
@pytest.mark.parametrize("code, calls", [(errno.ENOSPC, ("write",)), (errno.EIO, ("fsync",)), (errno.EACCES, ("rename", "open"))])
def test_failure_of_every_call_leaves_the_older_one(tmp_path, monkeypatch, code, calls, step):
    save(small_state(1), tmp_path, 1)
    at, failed = 0, True
    while failed:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            on_call(patch, CALLS, fail(code, at, calls))
            try:
                save(small_state(2), tmp_path, step)
                failed = False
            except CheckpointError as e:
                assert os.strerror(code) in str(e) and f"step-0000000{step}" in str(e)
        if failed:
            assert os.listdir(tmp_path) == ["step-00000001"]
            loads_one_of(tmp_path, (1, small_state(1)))
    assert at > 2 and same(load(tmp_path).state, small_state(2))


def test_writing_stops_short(tmp_path, monkeypatch):
    """A write may take fewer bytes than given; the rest must follow."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    save(small_state(1), tmp_path, 1)
    assert same(load(tmp_path).state, small_state(1))


def test_everything_is_synced_before_the_name_is_given(tmp_path, monkeypatch):
    """Files, then their folder, then the rename, then the parent: what a power cut needs."""
    log, paths = [], {}
    opened, synced, renamed = os.open, os.fsync, os.rename

    def track_open(path, *args, **kwargs):
        fd = opened(path, *args, **kwargs)
        paths[fd] = os.path.basename(path)
        return fd

    monkeypatch.setattr(os, "open", track_open)
    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(("fsync", paths[fd])), synced(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (log.append(("rename", os.path.basename(b))), renamed(a, b)))
    save(small_state(1), tmp_path, 1)
    assert sorted(log[:2]) == [("fsync", "model.safetensors"), ("fsync", "optimizer.safetensors")]
    assert log[2:] == [("fsync", "step-00000001.tmp"), ("fsync", "manifest.json"), ("fsync", "step-00000001.tmp"),
                       ("rename", "step-00000001"), ("fsync", tmp_path.name)]


def test_a_full_disk_need_not_stop_training(tmp_path, monkeypatch, caplog):
    keeper = Checkpointer(tmp_path, every=10, keep=2, on_error="continue")
    assert keeper.maybe_save(10, small_state(10))
    with pytest.MonkeyPatch.context() as patch:
        on_call(patch, CALLS, fail(errno.ENOSPC, 2, ("write",)))
        assert not keeper.maybe_save(20, small_state(20))
    assert "No space left" in caplog.text and latest(tmp_path) == 10
    assert keeper.maybe_save(21, small_state(21)) and latest(tmp_path) == 21
    assert not keeper.maybe_save(22, small_state(22))


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(count, name):
        if name == "fsync":
            raise KeyboardInterrupt

    on_call(monkeypatch, CALLS, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(small_state(1), tmp_path, 1)
    assert os.listdir(tmp_path) == []


def test_pruning_that_fails_is_a_warning(tmp_path, monkeypatch):
    save(small_state(1), tmp_path, 1)
    on_call(monkeypatch, ["rename"], fail(errno.EACCES, 2, ("rename",)))
    with pytest.warns(UserWarning, match="could not remove the old checkpoint of step 1"):
        save(small_state(2), tmp_path, 2, keep=1)
    assert latest(tmp_path) == 2
