"""The parts that need no ranks: reductions, staging, the queue, how MPI is started, threads as ranks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from dtrain.backend import state
from dtrain.comm import failure, run_threads, single_group, threads
from dtrain.comm.mpi.start import check_size, tune
from dtrain.comm.reduction import combine
from dtrain.comm.transport import parts
from dtrain.comm.work import Turns
from dtrain.errors import ArgumentError, CollectiveTimeout, DistributedError, LaunchError


def test_parts_cover_everything_once() -> None:
    for length in (0, 1, 15, 16, 17, 100, 1000):
        for size in (1, 2, 3, 8):
            cuts = parts(length, size)
            assert len(cuts) == size and sum(c.stop - c.start for c in cuts) == length
            assert all(a.stop == b.start for a, b in zip(cuts, cuts[1:])) and cuts[0].start == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
@pytest.mark.parametrize("into", [0, 1])
def test_combine_into_one_of_its_first_parts(into: int, dtype: type) -> None:
    arrays = [np.arange(4, dtype=dtype) + i for i in range(3)]
    combine(arrays, "sum", arrays[into])
    assert arrays[into].tolist() == [3, 6, 9, 12] and arrays[1 - into].tolist() == [1 - into + i for i in range(4)]


def test_turns_keep_order_under_many_threads() -> None:
    turns, seen = Turns("test"), []
    works = [turns.submit(lambda i=i: seen.append(i), i) for i in range(50)]
    turns.run(lambda: seen.append("inline"), "inline")
    for work in works:
        work.wait()
    assert seen == [*range(50), "inline"]
    turns.close(5)
    with pytest.raises(DistributedError, match="closed"):
        turns.submit(lambda: None, "late")
    assert not any(t.name == "dtrain-comm-test" for t in threading.enumerate())


def test_turns_keep_errors_for_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns("test")
    failing = turns.submit(lambda: 1 / 0, "one")
    assert turns.submit(lambda: None, "two").wait()
    assert isinstance(failing.exception(), ZeroDivisionError) and not failing.is_success()
    with pytest.raises(ZeroDivisionError):
        failing.wait()
    turns.submit(lambda: 1 / 0, "nobody's")
    slow = turns.submit(lambda: time.sleep(0.2), "slow")
    with pytest.raises(CollectiveTimeout, match="slow was not done after 0.01 s"):
        slow.wait(0.01)
    turns.close(5)
    assert "nobody's failed, and nobody waited for it: division by zero" in caplog.text and "one failed" not in caplog.text


def test_open_mpi_is_tuned_only_where_it_may_be() -> None:
    fast = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}
    one_host, two_hosts = ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": n} for n in ("4", "2"))
    for environ, settings, fabrics, tuned in [
        ({}, "", False, True), ({}, "", True, False), (one_host, "", True, True), (two_hosts, "", True, False),
        (two_hosts, "", False, True), ({"OMPI_MCA_pml": "ucx"}, "", False, False), ({}, "btl = ^openib\n", False, False),
        ({}, "# btl = x\n", False, True),
    ]:
        environ = dict(environ)
        before = dict(environ)
        tune(environ, settings, fabrics)
        assert environ == ({**before, **fast} if tuned else before)


def test_mpi_and_the_launcher_must_agree() -> None:
    check_size(4, 4, "x")
    check_size(4, None, "x")
    with pytest.raises(LaunchError, match=r"announced 4 ranks, but MPI \(Open MPI\) sees 1.*mpirun next to this Python"):
        check_size(1, 4, "Open MPI")


def test_run_threads_gives_each_rank_a_state_of_its_own() -> None:
    def fn(group, base):
        assert threads.current() is group
        state.local.rank.cuda_device = base + group.rank
        group.barrier()
        return state.local.rank.cuda_device

    assert run_threads(fn, 3, 10, timeout=10) == [10, 11, 12]
    assert state.process_rank.cuda_device == 0 and threads.current() is None
    with pytest.raises(ArgumentError, match="at least 1"):
        run_threads(fn, 0)


def test_run_threads_raises_the_first_cause_with_its_rank() -> None:
    def fn(group):
        if group.rank == 2:
            raise KeyError("the cause")
        group.barrier()

    with pytest.raises(KeyError) as caught:
        run_threads(fn, 3, timeout=10)
    assert caught.value.__notes__ == ["raised on rank 2 of 3"]


def test_run_threads_names_who_is_late(capfd: pytest.CaptureFixture) -> None:
    free = threading.Event()

    def fn(group):
        if group.rank == 1:
            free.wait(10)

    with pytest.raises(CollectiveTimeout, match=r"rank\(s\) 1 were not done after 0.2 s(.|\n)*free.wait"):
        run_threads(fn, 3, timeout=0.2)
    free.set()
    assert "most recent call first" in capfd.readouterr().err


def test_a_group_of_the_parent_is_dead_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    group = single_group()
    group.barrier()
    monkeypatch.setattr(failure, "generation", failure.generation + 1)
    with pytest.raises(DistributedError, match="forked child"):
        group.barrier()
    fresh = single_group()              # a child may start its own
    fresh.barrier()
    fresh.close()


def test_device_arrays_are_staged(device: str) -> None:
    from dtrain.backend.device import move     # arrays as tensors hold them

    def fn(group):
        array = move(np.full((4, 6), float(group.rank + 1)), device)
        group.all_reduce(array)
        part = array[::2, ::3]
        group.broadcast(part, 1)
        group.all_reduce(array, "avg", async_op=True).wait()
        out = move(np.zeros((2, 3), np.float32), device)
        group.all_gather(out, move(np.full(3, group.rank, np.float32), device))
        return [a if isinstance(a, np.ndarray) else a.get() for a in (array, out)]

    for array, out in run_threads(fn, 2, timeout=20):
        assert (array == 3).all() and out.tolist() == [[0, 0, 0], [1, 1, 1]]
