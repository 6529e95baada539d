"""What every group must do, whatever moves its bytes. Each law is called on all ranks with the group they share.

The oracle is NumPy on the data of all ranks, which each rank can make for itself from the seed.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.comm import record
from dtrain.comm.group import Group
from dtrain.errors import ArgumentError, CollectiveMismatch, CollectiveTimeout, DistributedError, DtypeError, PeerLost, ShapeError

bfloat16 = ml_dtypes.bfloat16
FLOATS = [np.float32, np.float64, np.float16, bfloat16]
INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
DTYPES = [*FLOATS, *INTS, np.bool_, np.complex64, np.complex128]
UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
          "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
BIG = 70_001                    # more than fits beside a header


def data(group: Group, shape: Any, dtype: Any = np.float64, seed: int = 0) -> list[np.ndarray]:
    """One array per rank, the same list on every rank."""
    rng = np.random.default_rng(seed)
    make = [rng.integers(0, 100, shape) if np.dtype(dtype).kind in "biu" else rng.standard_normal(shape) for _ in range(group.size)]
    return [np.asarray(m).astype(dtype) for m in make]


def folded(op: str, arrays: list[np.ndarray]) -> np.ndarray:
    """The reduction in rank order; half types in float32, rounded once."""
    dtype, half = arrays[0].dtype, arrays[0].dtype.itemsize == 2 and arrays[0].dtype.kind in "fV"
    wide = [a.astype(np.float32) for a in arrays] if half else arrays
    total = functools.reduce(UFUNCS["sum" if op == "avg" else op], wide)
    return np.asarray(total / len(arrays) if op == "avg" else total).astype(dtype)


def same(actual: Any, expected: Any) -> None:
    """Equal bit for bit."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, (actual.dtype, actual.shape, expected.dtype, expected.shape)
    if actual.tobytes() != expected.tobytes():
        raise AssertionError(f"not the same:\n{actual}\nexpected\n{expected}")


# -- reductions --------------------------------------------------------------------------------------

def all_reduce_every_dtype(group: Group) -> None:
    for dtype in DTYPES:
        kind = np.dtype(dtype).kind
        ops = ["sum", "prod"] + ["max", "min"] * (kind != "c") + ["band", "bor", "bxor"] * (kind in "biu") + ["avg"] * (kind in "fVc")
        for op in ops:
            for shape in [(5,), (BIG // 4,)] if op in ("sum", "avg", "bor") else [(5,)]:
                arrays = data(group, shape, dtype)
                mine = arrays[group.rank].copy()
                group.all_reduce(mine, op)
                same(mine, folded(op, arrays))


def all_reduce_every_shape(group: Group) -> None:
    for shape in [(), (0,), (3, 0, 2), (1,), (2, 3, 4), (BIG,), (7, 11_003)]:
        for dtype in (np.float32, np.bool_):
            arrays = data(group, shape, dtype)
            mine = arrays[group.rank].copy()
            group.all_reduce(mine)
            same(mine, folded("sum", arrays))


def all_reduce_every_layout(group: Group) -> None:
    for size in (4, 300):
        arrays = data(group, (size, size))
        for view in (lambda a: a.T, lambda a: a[::2, ::3], lambda a: a[::-1], np.asfortranarray, lambda a: a[1]):
            mine = arrays[group.rank].copy()
            group.all_reduce(view(mine) if view is not np.asfortranarray else (mine := view(mine)))
            expected = arrays[group.rank].copy()
            if view is np.asfortranarray:
                expected = folded("sum", arrays)
            else:
                view(expected)[...] = folded("sum", [view(a) for a in arrays])
            same(mine, expected)


def all_ranks_get_the_same_bits(group: Group) -> None:
    for dtype, op in ((np.float32, "sum"), (np.float16, "avg"), (bfloat16, "sum"), (np.float32, "prod")):
        mine = data(group, (BIG,), dtype, seed=3)[group.rank]
        group.all_reduce(mine, op)
        assert len(set(group.all_gather_object(mine.tobytes()))) == 1


def half_types_add_in_float32(group: Group) -> None:
    """2048 + 1 is 2048 in float16 and 256 + 1 is 256 in bfloat16: ones added one by one would be lost."""
    for dtype, base in ((np.float16, 2048.0), (bfloat16, 256.0)):
        mine = np.full(3, base if group.rank == 0 else 1.0, dtype)
        group.all_reduce(mine)
        same(mine, np.full(3, base + group.size - 1, np.float32).astype(dtype))


def reduce_leaves_the_others_alone(group: Group) -> None:
    for root in range(group.size):
        for shape in [(3,), (BIG,)]:
            arrays = data(group, shape, seed=root)
            mine = arrays[group.rank].copy()
            group.reduce(mine, root, "max")
            same(mine, folded("max", arrays) if group.rank == root else arrays[group.rank])


def reduce_scatter(group: Group) -> None:
    for shape in [(), (0,), (3,), (5, 7001)]:
        for dtype, op in ((np.float32, "sum"), (bfloat16, "avg"), (np.int16, "min")):
            arrays = data(group, (group.size, *shape), dtype)
            out = np.zeros(shape, dtype)
            group.reduce_scatter(out, arrays[group.rank], op)
            same(out, folded(op, [a[group.rank] for a in arrays]))


# -- copies ------------------------------------------------------------------------------------------

def broadcast(group: Group) -> None:
    for root in range(group.size):
        for shape, dtype in [((), np.int64), ((0,), np.float32), ((3,), np.bool_), ((BIG,), np.float32), ((4, 5), bfloat16)]:
            arrays = data(group, shape, dtype, seed=root)
            mine = arrays[group.rank].copy()
            group.broadcast(mine, root)
            same(mine, arrays[root])
    strided = np.zeros((6, 5000))[::2, ::2]
    strided[...] = group.rank
    group.broadcast(strided, group.size - 1)
    assert (strided == group.size - 1).all()


def read_only_arrays_can_be_sent(group: Group) -> None:
    fixed = np.arange(4.0)
    fixed.flags.writeable = False
    mine = fixed if group.rank == 0 else np.zeros(4)
    group.broadcast(mine, 0)
    same(mine, np.arange(4.0))
    with pytest.raises(ArgumentError, match="read-only"):
        group.all_reduce(fixed)


def all_gather(group: Group) -> None:
    for shape in [(), (0,), (3,), (5, 7001)]:
        for dtype in (np.float32, np.int8, bfloat16):
            arrays = data(group, shape, dtype)
            out = np.zeros((group.size, *shape), dtype)
            group.all_gather(out, arrays[group.rank])
            same(out, np.stack(arrays))
    wide = np.zeros((group.size, 4, 6))
    group.all_gather(wide[:, ::2], np.full((2, 6), float(group.rank)))
    assert (wide[:, ::2] == np.arange(group.size)[:, None, None]).all() and (wide[:, 1::2] == 0).all()


def gather_and_scatter(group: Group) -> None:
    for root in range(group.size):
        for shape in [(), (3,), (0, 2), (BIG,)]:
            arrays = data(group, shape, np.float32, seed=root)
            out = np.zeros((group.size, *shape), np.float32) if group.rank == root else None
            group.gather(out, arrays[group.rank], root)
            if out is not None:
                same(out, np.stack(arrays))
            back = np.zeros(shape, np.float32)
            group.scatter(back, None if out is None else out, root)
            same(back, arrays[group.rank])


def all_to_all(group: Group) -> None:
    n, r = group.size, group.rank
    for width in (1, 20_000):
        sent = data(group, (2 * n, width), np.float32)
        out = np.zeros((2 * n, width), np.float32)
        group.all_to_all(out, sent[r])
        same(out, np.concatenate([sent[i][2 * r:2 * r + 2] for i in range(n)]))


def all_to_all_uneven(group: Group) -> None:
    n, r = group.size, group.rank
    for scale in (1, 9000):
        rows = np.random.default_rng(4).integers(0, 4, (n, n)) * scale          # [i, j]: from i to j
        sent = [np.arange(rows[i].sum() * 2.0).reshape(-1, 2) + 1000 * i for i in range(n)]
        out = np.zeros((rows[:, r].sum(), 2))
        group.all_to_all(out, sent[r], rows[:, r].tolist(), rows[r].tolist())
        cuts = [np.split(sent[i], rows[i].cumsum()[:-1])[r] for i in range(n)]
        same(out, np.concatenate(cuts))


def objects(group: Group) -> None:
    n, r = group.size, group.rank
    for length in (0, 10, 100_000):
        assert group.all_gather_object({"rank": r, "text": "x" * length * r}) == [{"rank": i, "text": "x" * length * i} for i in range(n)]
        for root in range(n):
            assert group.broadcast_object(("from", r, "y" * length) if r == root else None, root) == ("from", root, "y" * length)
            expected = [bytes([i]) * length for i in range(n)] if r == root else None
            assert group.gather_object(bytes([r]) * length, root) == expected
            assert group.scatter_object([[i, "z" * length * i] for i in range(n)] if r == root else None, root) == [r, "z" * length * r]


def barrier_holds_everybody(group: Group) -> None:
    if group.rank == group.size - 1:
        time.sleep(0.05)
    arrived = time.monotonic()
    group.barrier()
    assert time.monotonic() >= max(group.all_gather_object(arrived))


# -- point to point ----------------------------------------------------------------------------------

def send_around(group: Group) -> None:
    n, r = group.size, group.rank
    for shape, dtype in [((), np.float64), ((0,), np.int8), ((5,), bfloat16), ((BIG * 9,), np.float32)]:
        arrays = data(group, shape, dtype)
        out = np.zeros(shape, dtype)
        works = [group.isend(arrays[r], (r + 1) % n), group.irecv(out, (r - 1) % n)]
        for work in works[::-1]:
            work.wait()
        group.barrier()                     # between nodes MPI moves bytes only while ranks are in calls
        same(out, arrays[(r - 1) % n])
        assert works[1].source == (r - 1) % n and works[1].is_completed() and works[1].is_success()


def messages_keep_their_order_and_tags(group: Group) -> None:
    n, r = group.size, group.rank
    there, back = (r + 1) % n, (r - 1) % n
    sends = [group.isend(np.array([i, r]), there, tag=i % 2) for i in range(6)]
    got = np.zeros((6, 2), int)
    for i in (1, 3, 5, 0, 2, 4):            # odd tags first, though sent later
        group.recv(got[i], back, tag=i % 2)
    for work in sends:
        work.wait()
    same(got, np.array([[i, back] for i in range(6)]))


def receive_from_anybody(group: Group) -> None:
    if group.rank == 0:
        seen = set()
        for _ in range(group.size - 1):
            out = np.zeros(3)
            source = group.recv(out)
            assert (out == source).all()
            seen.add(source)
        assert seen == set(range(1, group.size))
    else:
        group.send(np.full(3, float(group.rank)), 0)
    group.barrier()


def receive_into_a_view(group: Group) -> None:
    n, r = group.size, group.rank
    out = np.zeros((4, 6))
    work = group.irecv(out[::2, ::3], (r - 1) % n)
    group.send(np.arange(8.0).reshape(4, 2).T.reshape(2, 4)[:, ::2] + r, (r + 1) % n)
    work.wait()
    same(out[::2, ::3], np.arange(8.0).reshape(4, 2).T.reshape(2, 4)[:, ::2] + (r - 1) % n)
    assert out.sum() == out[::2, ::3].sum()


def a_collective_lets_messages_through(group: Group) -> None:
    """The first rank leaves a long message on its way and goes on; the second must be able to receive it."""
    long = np.arange(2_000_000.0)
    if group.rank == 0:
        work = group.isend(long, group.size - 1)
    if group.rank == group.size - 1:
        out = np.zeros_like(long)
        group.recv(out, 0)
        same(out, long)
    group.barrier()
    if group.rank == 0:
        work.wait()


def a_message_of_another_size_is_refused(group: Group) -> None:
    if group.size == 1:
        return
    for sent, expected in ((np.zeros(3), np.zeros(4)), (np.zeros(3, np.float32), np.zeros(3, np.int32))):
        if group.rank == 0:
            group.send(sent, 1)
        elif group.rank == 1:
            with pytest.raises(CollectiveMismatch, match=r"rank 0 sent \w+ \(3,\) and rank 1 expected"):
                group.recv(expected, 0)
    if group.rank == 0:
        group.send(np.arange(3.0), 1)
    elif group.rank == 1:
        out = np.zeros(3)
        group.recv(out, 0)
        same(out, np.arange(3.0))


# -- order -------------------------------------------------------------------------------------------

def asynchronous_calls_run_in_order(group: Group) -> None:
    arrays = [np.full(BIG if i % 3 == 0 else 3, float(group.rank + i), np.float32) for i in range(7)]
    works = [group.all_reduce(a, async_op=True) for a in arrays]
    last = np.full(2, 1.0)
    group.all_reduce(last)                  # synchronous, after all of them
    assert all(w.is_completed() for w in works[:-1])
    for i, (work, a) in enumerate(zip(works, arrays)):
        assert work.wait() and work.is_completed() and work.is_success() and work.exception() is None
        same(a, np.full(a.shape, sum(r + i for r in range(group.size)), np.float32))
    assert last[0] == group.size


def asynchronous_copies_come_back(group: Group) -> None:
    base = np.zeros((4, 6))
    view = base[::2, ::3]
    view[...] = 1.0
    group.all_reduce(view, async_op=True).wait()
    assert (view == group.size).all() and base.sum() == 4 * group.size


def the_record_knows(group: Group) -> None:
    group.all_reduce(np.zeros((2, 3), np.float32), "max")
    last = [e for e in record.recent() if e["group"] == group.name and e["what"].startswith("all_reduce")][-1]
    assert last["what"] == "all_reduce max float32 (2, 3)" and last["state"] == "done"
    assert "laws.py:" in last["site"] and 0 <= last["age"] < 60
    group.barrier()                         # threads share the record of their process
    for _ in range(record.LENGTH + 10):
        record.add(record.Entry("x", 0, b"x", b"x"))
    assert len(record.recent()) == record.LENGTH


# -- groups within groups ----------------------------------------------------------------------------

def new_groups(group: Group) -> None:
    n, r = group.size, group.rank
    members = list(range(n))[::-1][: max(n - 1, 1)]
    sub = group.new_group(members)
    assert (sub is not None) == (r in members)
    if sub is not None:
        assert (sub.rank, sub.size, sub.ranks) == (members.index(r), len(members), tuple(group.ranks[m] for m in members))
        arrays = data(group, (BIG,))
        mine = arrays[r].copy()
        sub.all_reduce(mine)
        same(mine, folded("sum", [arrays[m] for m in members]))
        sub.barrier()
        inner = sub.new_group([0])
        if inner is not None:
            assert inner.ranks == (group.ranks[members[0]],)
            inner.close()
        sub.close()
    everybody = group.new_group()
    assert everybody.all_gather_object(r) == list(range(n))
    everybody.close()


def split_by_color_and_key(group: Group) -> None:
    n, r = group.size, group.rank
    part = group.split(r % 2, key=-r)
    expected = [i for i in range(n) if i % 2 == r % 2][::-1]
    assert part.ranks == tuple(group.ranks[i] for i in expected)
    for _ in range(3 if r % 2 else 1):      # the two halves need not keep step
        assert part.all_gather_object(r) == expected
    part.close()
    assert (group.split(None if r == 0 else 0) is None) == (r == 0)
    group.barrier()


# -- mistakes ----------------------------------------------------------------------------------------

def different_calls_are_an_error_everywhere(group: Group) -> None:
    if group.size == 1:
        return
    other = group.rank == group.size - 1
    pairs = [
        (lambda: group.all_reduce(np.zeros(3)), lambda: group.all_reduce(np.zeros(4)), "float64 (3,)", "float64 (4,)"),
        (lambda: group.all_reduce(np.zeros(BIG)), lambda: group.all_reduce(np.zeros(BIG, np.float32)), "float64", "float32"),
        (lambda: group.all_reduce(np.zeros(3)), lambda: group.all_reduce(np.zeros(3), "max"), "sum", "max"),
        (lambda: group.all_reduce(np.zeros(3)), lambda: group.broadcast(np.zeros(3), 0), "all_reduce", "broadcast"),
        (lambda: group.broadcast(np.zeros(3), 0), lambda: group.broadcast(np.zeros(3), 1), "from 0", "from 1"),
        (lambda: group.barrier(), lambda: group.all_gather_object(1), "barrier", "all_gather_object"),
        (lambda: group.all_reduce(np.zeros(3), async_op=True).wait(), lambda: group.barrier(), "all_reduce", "barrier"),
    ]
    for usual, unusual, one, another in pairs:
        with pytest.raises(CollectiveMismatch) as caught:
            unusual() if other else usual()
        text = str(caught.value)
        assert one in text and another in text and text.count("laws.py:") == 2
        assert f"rank {group.ranks[-1]}:" in text
    mine = np.ones(3)
    group.all_reduce(mine)                  # nothing was touched, and the group goes on
    assert mine[0] == group.size


def untouched_after_a_mismatch(group: Group) -> None:
    if group.size == 1:
        return
    mine = np.full(BIG + group.rank, 7.0)
    with pytest.raises(CollectiveMismatch):
        group.all_reduce(mine)
    assert (mine == 7.0).all()


def uneven_splits_that_disagree(group: Group) -> None:
    if group.size == 1:
        return
    sizes = [1] * group.size
    with pytest.raises(CollectiveMismatch, match="expecting"):
        group.all_to_all(np.zeros(group.size), np.zeros(group.size + (group.rank == 1)), sizes,
                         [1] * (group.size - 1) + [1 + (group.rank == 1)])


def bad_arguments(group: Group) -> None:
    n = group.size
    with pytest.raises(ArgumentError, match="sum, avg"):
        group.all_reduce(np.zeros(3), "mean")
    with pytest.raises(DtypeError, match="avg"):
        group.all_reduce(np.zeros(3, int), "avg")
    with pytest.raises(DtypeError, match="band"):
        group.all_reduce(np.zeros(3), "band")
    with pytest.raises(DtypeError, match="object collectives"):
        group.broadcast(np.array([None, 1]), 0)
    with pytest.raises(ArgumentError, match=f"ranks 0 to {n - 1}"):
        group.broadcast(np.zeros(3), n)
    with pytest.raises(ShapeError, match="expected float64 of shape"):
        group.all_gather(np.zeros((n + 1, 3)), np.zeros(3))
    with pytest.raises(ShapeError, match="splits"):
        group.all_to_all(np.zeros(3), np.zeros(3), [3] * n, [4] * n)
    with pytest.raises(ArgumentError, match="dtrain.distributed"):
        group.all_reduce([1.0, 2.0])
    with pytest.raises(ArgumentError, match="different"):
        group.new_group([0, 0])
    group.barrier()


# -- the end -----------------------------------------------------------------------------------------

def a_closed_group_says_so(group: Group) -> None:
    sub = group.new_group()
    sub.barrier()
    if group.rank == group.size - 1:
        sub.close()
        with pytest.raises(DistributedError, match="closed"):
            sub.barrier()
    elif "messages" not in group.backend:
        with pytest.raises(PeerLost, match=f"rank {group.size - 1} has left the group"):
            sub.barrier()
    group.barrier()


def abort_wakes_everybody(group: Group) -> None:
    if group.size == 1:
        return
    sub = group.new_group()
    if group.rank == 0:
        sub.abort("rank 0 has had enough")
    began = time.monotonic()
    for _ in range(2):                      # now, and ever after
        with pytest.raises(PeerLost, match="rank 0 has had enough"):
            sub.all_reduce(np.zeros(3))
    assert time.monotonic() - began < 5
    sub.close()
    group.barrier()


def a_deadline_names_the_missing(group: Group) -> None:
    if group.size == 1:
        return
    sub = group.new_group(timeout=0.2)
    if group.rank != 1:
        with pytest.raises(CollectiveTimeout, match=r"waited 0\.\d+ s for rank 1"):
            sub.all_reduce(np.zeros(3))
    group.barrier()
    if group.rank == 1:
        with pytest.raises(CollectiveTimeout, match=r"waited 0\.\d+ s for rank 1"):
            sub.all_reduce(np.zeros(3))
    sub.close()
    group.barrier()


def a_message_that_does_not_come(group: Group) -> None:
    sub = group.new_group(timeout=30)
    out = np.zeros(3)
    work = sub.irecv(out, 0, tag=7)
    with pytest.raises(CollectiveTimeout, match="still under way"):
        work.wait(timeout=0.05)
    assert not work.is_completed()
    group.barrier()
    if sub.rank == 0:
        for peer in range(sub.size):
            sub.send(np.arange(3.0), peer, tag=7)
    work.wait()
    same(out, np.arange(3.0))
    sub.barrier()
    sub.close()


def many_small_calls(group: Group) -> None:
    """Rounds follow each other closely; a slot reused too early would show."""
    for i in range(300):
        mine = np.array([float(group.rank + i)])
        group.all_reduce(mine)
        assert mine[0] == sum(r + i for r in range(group.size))
        big = np.full(3000, group.rank * i, np.int64)
        group.broadcast(big, i % group.size)
        assert (big == (i % group.size) * i).all()


LAWS = [f for name, f in list(globals().items())
        if callable(f) and getattr(f, "__module__", "") == __name__ and name not in ("data", "folded", "same")]
