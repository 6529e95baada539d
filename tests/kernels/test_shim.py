"""The host shim runs CUDA's model of threads, and refuses what would hang or be undefined on a GPU."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.shim_build import ORDERS, ShimError, load, run_kernel

PROBES = Path(__file__).with_name("probes.cu")


def run(name, grid, block, *args, **options):
    run_kernel(PROBES, name, (grid,) if isinstance(grid, int) else grid, (block,) if isinstance(block, int) else block, args, **options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads, width", [(32, 7), (256, 1000), (1024, 5000)])
def test_block_reduction(order, threads, width):
    x = np.random.default_rng(0).integers(-50, 50, (5, width)).astype(np.float32)
    sums = np.full((5, 2), np.nan, np.float32)
    run("row_sums", 5, threads, x, sums, np.int32(width), order=order, seed=3)
    np.testing.assert_array_equal(sums, np.stack([x.sum(1), (x * x).sum(1)], 1))


@pytest.mark.parametrize("order", ORDERS)
def test_dynamic_shared_memory_and_barrier(order):
    x, out = np.arange(96, dtype=np.int32), np.zeros(96, np.int32)
    run("reverse_block", 1, 96, x, out, order=order, shared_mem=96 * 4)
    np.testing.assert_array_equal(out, x[::-1])


def test_a_missing_barrier_shows():
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    for order in ORDERS:
        run("missing_barrier", 1, 64, x, out, order=order)
        assert not np.array_equal(out, x[::-1])


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles(order):
    out = np.full((64, 7), -1, np.int32)
    run("shuffles", 1, 64, out, order=order, seed=1)
    lane = np.arange(32)
    within_8 = np.where(lane % 8 < 7, lane + 1, lane)
    ballot = np.full(32, sum(1 << i for i in range(0, 32, 3))).astype(np.uint32).view(np.int32)
    expected = [
        np.full(32, 5), np.where(lane >= 3, lane - 3, lane), np.where(lane < 29, lane + 3, lane), lane ^ 9, within_8, lane // 4 * 4 + 3, ballot,
    ]  # fmt: skip
    np.testing.assert_array_equal(out[:32], np.stack(expected, 1))
    np.testing.assert_array_equal(out[32:], out[:32])


@pytest.mark.parametrize("order", ORDERS)
def test_parts_of_a_warp_go_their_own_ways(order):
    out = np.zeros(32, np.int32)
    run("half_warps", 1, 32, out, order=order, seed=2)
    np.testing.assert_array_equal(out, [120] * 16 + [3] * 16)


@pytest.mark.parametrize("order", ORDERS)
def test_places(order):
    grid, block = (2, 3, 2), (3, 2, 2)
    out = np.full(12 * 12, -1, np.int32)
    run("places", grid, block, out, order=order)
    bz, by, bx, tz, ty, tx = np.indices((2, 3, 2, 2, 2, 3))
    np.testing.assert_array_equal(out, (tx + 10 * ty + 100 * tz + 1000 * bx + 10000 * by + 100000 * bz).ravel())


def test_atomics():
    counts, total = np.array([0, -1, 99, 7, 0], np.int32), np.zeros(1, np.float32)
    run("atomics", 2, 40, counts, total)
    np.testing.assert_array_equal(counts, [80, 39, 0, 0, 9])
    assert total[0] == 40


def test_orders_differ():
    last = {}
    for order in ORDERS:
        out = np.zeros((), np.int32)
        run("who_is_last", 8, 64, out, order=order, seed=5)
        last[order] = int(out)
    assert last["forward"] == 511 and last["reverse"] == 0 and last["random"] not in (0, 511)


def test_shared_memory_does_not_survive_a_block():
    out = np.zeros((3, 32), np.float32)
    run("unwritten_shared", 3, 32, out)
    assert np.isnan(out[1:, 4]).all() and np.isnan(out).sum() == 2


def test_half_types_round_as_ieee_does():
    every = np.arange(1 << 16, dtype=np.uint16)
    halves = np.concatenate([every.view(np.float16).astype(np.float32), every.view(ml_dtypes.bfloat16).astype(np.float32)])
    with np.errstate(over="ignore"):
        neighbours = (halves.view(np.uint32)[:, None] + np.array([-1, 0, 1, 0x1000, 0x0FFF, 0x8000, 0x7FFF], np.int64)).astype(np.uint32).view(np.float32)
    x = np.concatenate([neighbours.ravel(), np.random.default_rng(0).normal(size=5000).astype(np.float32)])
    half, bfloat = np.empty_like(x), np.empty_like(x)
    run("to_half_and_back", 64, 256, x, half, bfloat, np.int64(x.size))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(bfloat, x.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize(
    "name, threads, message",
    [
        ("leaves_before_barrier", 64, r"waits for ever: __syncthreads in line \d+, and thread \(3, 0, 0\) has returned"),
        ("two_barriers", 64, r"__syncthreads in line \d+ is not where others of its block wait, line \d+"),
        ("lane_missing", 32, r"waits for ever: __shfl_xor_sync in line \d+, and thread \(2, 0, 0\) has returned"),
        ("lane_missing", 40, r"waits for ever: __shfl_xor_sync"),
        ("not_in_its_mask", 32, r"has a mask without its own lane"),
        ("reads_outside_mask", 32, r"reads a lane that is not in its mask"),
        ("different_operations", 32, r"meets lanes of its mask in"),
    ],
)
def test_what_hangs_on_a_gpu_is_an_error(name, threads, message):
    args = () if name in ("leaves_before_barrier", "two_barriers") else (np.zeros(64, np.int32),)
    for order in ORDERS:
        with pytest.raises(ShimError, match=message):
            run(name, 2, threads, *args, order=order)
    test_block_reduction("forward", 256, 1000)              # and the library is as good as before


def test_error_names_the_line():
    line = next(i for i, text in enumerate(PROBES.read_text().splitlines(), 1) if "__shfl_sync(0x0000ffffu, 1, 0)" in text)
    with pytest.raises(ShimError, match=rf"not_in_its_mask: thread \(16, 0, 0\) of block \(0, 0, 0\): __shfl_sync in line {line} "):
        run("not_in_its_mask", 1, 32, np.zeros(32, np.int32))


@pytest.mark.parametrize(
    "args, message",
    [
        ((np.zeros(4, np.float64), np.zeros(4, np.float32), np.int32(4)), "expected argument 0 to be a pointer to 4 byte elements"),
        ((np.zeros(4, np.float32), np.zeros(4, np.float32), np.int64(4)), "expected argument 2 to be 4 bytes of integer"),
        ((np.zeros(4, np.float32), np.zeros(4, np.float32), np.float32(4)), "expected argument 2 to be 4 bytes of integer"),
        ((np.zeros(4, np.float32), np.int32(4)), "expected 3 arguments, got 2"),
        ((np.zeros(4, np.float32), np.zeros(4, np.float32), 4), "argument 2 is a int; pass NumPy arrays and scalars"),
    ],
)
def test_arguments_are_checked(args, message):
    with pytest.raises(ShimError, match=message):
        run("row_sums", 1, 32, *args)


@pytest.mark.parametrize(
    "grid, block, shared, message",
    [
        (1, 1025, 0, "a block has 1 to 1024 threads"),
        (1, (1, 1, 65), 0, "at most 64 in z"),
        (0, 32, 0, "a grid has 1 to"),
        ((1, 70000), 32, 0, "a grid has 1 to"),
        (1, 32, 1 << 20, "bytes of dynamic shared memory"),
        ((1, 1, 1, 1), 32, 0, "grid and block are 1 to 3 numbers"),
    ],
)
def test_limits_of_a_launch(grid, block, shared, message):
    with pytest.raises(ShimError, match=message):
        run("places", grid, block, np.zeros(1, np.int32), shared_mem=shared)


def test_unknown_kernels_and_sources_that_do_not_compile():
    with pytest.raises(ShimError, match="there is no such kernel; there are atomics, "):
        run("row_sum", 1, 32)
    with pytest.raises(ShimError, match="the source defines no kernel"):
        load("int x;")
    with pytest.raises(ShimError, match="the host compiler refuses the kernel:(.|\n)*undeclared_name"):
        load('extern "C" __global__ void k(int* x) { *x = undeclared_name; }')
