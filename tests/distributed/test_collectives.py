"""``dtrain.distributed``'s calls, on ranks that are threads. The groups below them have a contract suite of their own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

import dtrain
import dtrain.distributed as dist
from dtrain.comm import run_threads
from dtrain.errors import ArgumentError, CollectiveTimeout, DistributedError, ShapeError
from tests.util import to_numpy

SIZES = [1, 2, 3]


def ranks(fn: Any, size: int, *args: Any) -> list[Any]:
    """Run ``fn(rank, size, *args)`` on ranks that have a default group."""
    def body(group: Any) -> Any:
        dist.init_process_group()
        try:
            return fn(dist.get_rank(), dist.get_world_size(), *args)
        finally:
            dist.destroy_process_group()

    return run_threads(body, size, timeout=30)


def full(value: float, *shape: int, **options: Any) -> dtrain.Tensor:
    return dtrain.full(shape, float(value), **options)


@pytest.mark.parametrize("size", SIZES)
def test_reductions(size: int) -> None:
    def fn(r: int, n: int) -> None:
        for op, expected in [(dist.ReduceOp.SUM, n * (n + 1) / 2), (dist.ReduceOp.AVG, (n + 1) / 2), (dist.ReduceOp.MAX, n),
                             (dist.ReduceOp.MIN, 1), (dist.ReduceOp.PRODUCT, np.prod(np.arange(1.0, n + 1)))]:
            t = full(r + 1, 2, 3)
            assert dist.all_reduce(t, op) is None
            assert t.tolist() == [[expected] * 3] * 2
        bits = dtrain.tensor([1 << r])
        dist.all_reduce(bits, dist.ReduceOp.BOR)
        assert bits.tolist() == [2**n - 1]
        t = full(r + 1, 2)
        dist.reduce(t, n - 1)
        assert t.tolist() == ([n * (n + 1) / 2] * 2 if r == n - 1 else [r + 1] * 2)

    ranks(fn, size)


@pytest.mark.parametrize("size", SIZES)
def test_copies(size: int) -> None:
    def fn(r: int, n: int) -> None:
        t = full(r, 3)
        dist.broadcast(t, src=n - 1)
        assert t.tolist() == [n - 1] * 3
        places = [full(-1, 2) for _ in range(n)]
        dist.all_gather(places, full(r, 2))
        assert [p.tolist() for p in places] == [[i] * 2 for i in range(n)]
        for shape in ((n * 2, 3), (n, 2, 3)):
            whole = full(-1, *shape)
            dist.all_gather_into_tensor(whole, full(r, 2, 3))
            assert to_numpy(whole).reshape(n, 6).tolist() == [[i] * 6 for i in range(n)]
        places = [full(-1) for _ in range(n)] if r == 0 else None
        dist.gather(full(r * 1.0), places, dst=0)
        assert r or [p.item() for p in places] == list(range(n))
        out = full(-1, 2)
        dist.scatter(out, [full(i, 2) for i in range(n)] if r == n - 1 else None, src=n - 1)
        assert out.tolist() == [r, r]

    ranks(fn, size)


@pytest.mark.parametrize("size", SIZES)
def test_scatters(size: int) -> None:
    def fn(r: int, n: int) -> None:
        out = full(0, 2)
        dist.reduce_scatter(out, [full(10 * i + r, 2) for i in range(n)])
        expected = 10 * r * n + n * (n - 1) / 2
        assert out.tolist() == [expected] * 2
        for shape in ((2 * n,), (n, 2)):
            whole = dtrain.stack([full(10 * i + r, 2) for i in range(n)]).reshape(shape)
            dist.reduce_scatter_tensor(out, whole, op=dist.ReduceOp.SUM)
            assert out.tolist() == [expected] * 2
        places = [full(0, i + 1) for i in range(n)]
        dist.all_to_all(places, [full(100 * r + i, r + 1) for i in range(n)])
        assert [p.tolist() for p in places] == [[100 * i + r] * (i + 1) for i in range(n)]
        out = full(0, n)
        dist.all_to_all_single(out, dtrain.arange(n) * 1.0 + 10 * r)
        assert out.tolist() == [10 * i + r for i in range(n)]
        uneven = full(0, sum(range(1, n + 1)), 2)
        dist.all_to_all_single(uneven, full(r, n * (r + 1), 2), [i + 1 for i in range(n)], [r + 1] * n)
        assert uneven[:, 0].tolist() == [float(i) for i in range(n) for _ in range(i + 1)]

    ranks(fn, size)


@pytest.mark.parametrize("size", [2, 3])
def test_messages(size: int) -> None:
    def fn(r: int, n: int) -> None:
        there, back = (r + 1) % n, (r - 1) % n
        out = full(0, 4)
        works = dist.batch_isend_irecv([dist.P2POp(dist.isend, full(r, 4), there), dist.P2POp(dist.irecv, out, back)])
        for work in works:
            assert work.wait(timedelta(seconds=10))
        assert out.tolist() == [back] * 4
        if r == 0:
            dist.send(full(7, 2), 1, tag=3)
        elif r == 1:
            out = full(0, 2)
            assert dist.recv(out, tag=3) == 0 and out.tolist() == [7, 7]
        work = dist.isend(full(r, 1), there)
        assert dist.recv(out := full(0, 1), back) == back and out.item() == back
        work.wait()

    ranks(fn, size)


@pytest.mark.parametrize("size", SIZES)
def test_objects(size: int) -> None:
    def fn(r: int, n: int) -> None:
        places: list[Any] = [None] * n
        dist.all_gather_object(places, {"r": r})
        assert places == [{"r": i} for i in range(n)]
        both = [r, "x" * r]
        dist.broadcast_object_list(both, src=n - 1)
        assert both == [n - 1, "x" * (n - 1)]
        places = [None] * n if r == 0 else None
        dist.gather_object(r, places, dst=0)
        assert r or places == list(range(n))
        out: list[Any] = [None]
        dist.scatter_object_list(out, [f"for {i}" for i in range(n)] if r == 0 else None, src=0)
        assert out == [f"for {r}"]

    ranks(fn, size)


def test_asynchronous() -> None:
    def fn(r: int, n: int) -> None:
        tensors = [full(r + i, 1000) for i in range(5)]
        works = [dist.all_reduce(t, async_op=True) for t in tensors]
        places = [full(0, 3) for _ in range(n)]
        works.append(dist.all_gather(places, full(r, 3), async_op=True))
        works.append(dist.barrier(async_op=True))
        assert all(w.wait() for w in works) and all(w.is_completed() and w.is_success() for w in works)
        assert [t[0].item() for t in tensors] == [n * i + n * (n - 1) / 2 for i in range(5)]
        assert [p[0].item() for p in places] == list(range(n))

    ranks(fn, 3)


def test_groups_speak_of_ranks_of_the_world() -> None:
    def fn(r: int, n: int) -> None:
        sub = dist.new_group([3, 1], timeout=timedelta(seconds=20))
        if r not in (1, 3):
            assert sub == dist.GroupMember.NON_GROUP_MEMBER and dist.get_rank(sub) == -1 and dist.get_world_size(sub) == -1
            with pytest.warns(UserWarning, match="not a member"):
                assert dist.all_reduce(full(1, 2), group=sub) is None
        else:
            assert dist.get_process_group_ranks(sub) == [1, 3] and dist.get_rank(sub) == [1, 3].index(r)
            assert sub.rank() == sub.rank == [1, 3].index(r) and sub.size() == 2
            assert dist.get_global_rank(sub, 1) == 3 and dist.get_group_rank(sub, 3) == 1
            t = full(r, 2)
            dist.broadcast(t, src=3, group=sub)
            assert t.tolist() == [3, 3]
            dist.broadcast(t.fill_(r), group_src=0, group=sub)
            assert t.tolist() == [1, 1]
            with pytest.raises(ArgumentError, match=r"rank 0 of the world is not in the group of ranks \[1, 3\]"):
                dist.broadcast(t, src=0, group=sub)
            if r == 1:
                dist.send(full(5, 1), 3, group=sub)
            else:
                assert dist.recv(t[:1], 1, group=sub) == 1 and t[0].item() == 5
        mine, all_of_them = dist.new_subgroups(2)
        assert len(all_of_them) == 2 and dist.get_process_group_ranks(mine) == [r // 2 * 2, r // 2 * 2 + 1]
        dist.destroy_process_group(mine)

    ranks(fn, 4)


def test_world() -> None:
    for kind in (ValueError, RuntimeError):     # what PyTorch raises here, and elsewhere
        with pytest.raises(kind, match="init_process_group"):
            dist.get_rank()
    assert not dist.is_initialized() and dist.is_available() and dist.group.WORLD is None

    def fn(r: int, n: int) -> None:
        assert dist.is_initialized() and dist.group.WORLD is dist.GroupMember.WORLD
        assert dist.group.WORLD.ranks == tuple(range(n)) and dist.get_backend() == "threads" == dist.Backend.THREADS
        assert dist.get_backend_config() == "cpu:threads,cuda:threads"
        with pytest.raises(DistributedError, match="already initialised"):
            dist.init_process_group()

    ranks(fn, 2)
    assert not dist.is_initialized()


def test_autograd_notices_what_a_collective_wrote() -> None:
    def fn(r: int, n: int) -> None:
        x = full(2, 3, requires_grad=True)
        y = x * 1.0
        z = (y * y).sum()
        dist.all_reduce(y)
        with pytest.raises(RuntimeError, match="modified|version"):
            z.backward()
        y = x * 1.0
        z = (y * y).sum()
        dist.broadcast(y, 0)
        if r == 0:              # the source only reads
            z.backward()
            assert x.grad.tolist() == [4, 4, 4]

    ranks(fn, 2)


def test_views_and_dtypes() -> None:
    def fn(r: int, n: int) -> None:
        base = full(0, 4, 6)
        base.t()[1:3].fill_(r + 1)
        dist.all_reduce(base.t()[1:3])
        assert base.sum().item() == 8 * n * (n + 1) / 2
        for dtype in (dtrain.bfloat16, dtrain.float16, dtrain.float64, dtrain.int64, dtrain.uint8, dtrain.bool):
            t = dtrain.ones(3, dtype=dtype)
            dist.all_reduce(t)
            assert t.dtype == dtype and t.tolist() == [True if dtype == dtrain.bool else n] * 3

    ranks(fn, 2)


def test_on_a_device(device: str) -> None:
    def fn(r: int, n: int) -> None:
        t = full(r + 1, 2, 3).to(device)
        dist.all_reduce(t)
        dist.all_reduce(t, dist.ReduceOp.AVG, async_op=True).wait()
        assert t.device.type == device.split(":")[0] and t.tolist() == [[3] * 3] * 2
        places = [full(0, 2).to(device) for _ in range(n)]
        dist.all_gather(places, full(r, 2).to(device))
        assert [p.tolist() for p in places] == [[0, 0], [1, 1]]
        out = full(0, 2, 2).to(device)
        dist.all_gather_into_tensor(out.reshape(4), full(r, 2).to(device))
        dist.reduce_scatter(t[0], [full(i, 3).to(device) for i in range(n)])
        assert t[0].tolist() == [2 * r] * 3
        dist.send(t, 1 - r) if r else dist.recv(t, 1 - r)

    ranks(fn, 2)


def test_mistakes() -> None:
    def fn(r: int, n: int) -> None:
        with pytest.raises(ArgumentError, match="tensor must be a Tensor, not ndarray"):
            dist.all_reduce(np.zeros(3))
        with pytest.raises(ArgumentError, match="ReduceOp.SUM"):
            dist.all_reduce(full(1, 2), "mean")
        with pytest.raises(ArgumentError, match="list of 2 tensors"):
            dist.all_gather([full(1, 2)], full(1, 2))
        with pytest.raises(ShapeError, match=r"tensor_list\[1\] is float32 of shape \(3,\)"):
            dist.all_gather([full(1, 2), full(1, 3)], full(1, 2))
        with pytest.raises(ShapeError, match=r"must be \(2, 2\) or \(4,\)"):
            dist.all_gather_into_tensor(full(0, 5), full(1, 2))
        with pytest.raises(ArgumentError, match="between 0 and 1"):
            dist.new_group([0, 2])
        with pytest.raises(ArgumentError, match="src or group_src"):
            dist.broadcast(full(1, 2), src=0, group_src=0)
        with pytest.raises(ArgumentError, match="isend or"):
            dist.P2POp(dist.send, full(1, 2), 0)
        with pytest.raises(ArgumentError, match="list of 2 places"):
            dist.all_gather_object([], 1)
        dist.barrier()

    ranks(fn, 2)


def test_monitored_barrier_names_the_missing() -> None:
    def fn(group: Any) -> None:
        dist.init_process_group()
        dist.monitored_barrier()
        if group.rank != 2:
            with pytest.raises(CollectiveTimeout, match=r"monitored_barrier.*for rank 2 \(last call: #1 barrier"):
                dist.monitored_barrier(timeout=timedelta(seconds=0.2))
        else:
            time.sleep(0.5)

    run_threads(fn, 3, timeout=20)
