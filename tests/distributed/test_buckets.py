"""The plan of gradient buckets: pure values."""

import numpy as np

from dtrain.distributed.buckets import ALIGN, Item, plan, views


def items(*sizes, kind="float32 cpu", itemsize=4):
    return [Item(i, (n,), n, itemsize, kind) for i, n in enumerate(sizes)]


def test_the_first_bucket_is_small_and_the_others_fill_to_the_cap():
    buckets = plan(items(100, 100, 300, 300, 300, 50), cap_bytes=2400, first_bytes=800)
    assert [b.indices for b in buckets] == [(0, 1), (2, 3), (4, 5)]


def test_a_large_parameter_does_not_wait_for_others():
    assert [b.indices for b in plan(items(10, 10_000, 10), 1000, 1000)] == [(0, 1), (2,)]


def test_kinds_never_mix():
    mixed = items(10, 10) + [Item(2, (5,), 5, 8, "float64 cpu"), Item(3, (5,), 5, 4, "float32 cpu")]
    assert sorted(b.indices for b in plan(mixed, 1 << 20)) == [(0, 1, 3), (2,)]


def test_views_are_disjoint_aligned_and_cover_every_element():
    shapes = [(3, 5), (), (7,), (0, 4), (16,)]
    (bucket,) = plan([Item(i, s, int(np.prod(s)), 4, "k") for i, s in enumerate(shapes)], 1 << 20)
    flat = np.zeros(bucket.numel, np.float32)
    for number, (index, view) in enumerate(zip(bucket.indices, views(flat, bucket, shapes)), 1):
        assert view.shape == shapes[index] and np.shares_memory(view, flat) == bool(view.size)
        view += number
    assert all(start % ALIGN == 0 for start in bucket.offsets)
    counts = {n: int((flat == n).sum()) for n in range(1, 6)}
    assert counts == {1: 15, 2: 1, 3: 7, 4: 0, 5: 16}


def test_every_parameter_is_in_exactly_one_bucket():
    buckets = plan(items(*range(1, 200)), 4096, 512)
    assert sorted(i for b in buckets for i in b.indices) == list(range(199))
