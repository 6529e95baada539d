"""Streams and events: order where it is asked for, PyTorch's interface."""

import numpy as np
import pytest

import dtrain.cuda
from dtrain.backend import cuda
from dtrain.backend.device import device, move
from tests.util import normal


def fill(value):
    return move(np.full(1000, value, np.float32), device("cuda:0"))


def test_wait_stream_orders_the_work():
    side = dtrain.cuda.Stream()
    with dtrain.cuda.stream(side):
        made = fill(3.0) * 2
    dtrain.cuda.current_stream().wait_stream(side)
    assert float((made + 1).sum()) == 7000


def test_event_orders_the_work():
    side, event = dtrain.cuda.Stream(), dtrain.cuda.Event()
    with dtrain.cuda.stream(side):
        made = fill(1.0) + 1
        event.record()
    event.wait()
    assert float(made.sum()) == 2000


def test_synchronize_orders_the_work():
    side = dtrain.cuda.Stream()
    with dtrain.cuda.stream(side):
        made = fill(1.0) + 1
    side.synchronize()
    assert side.query() and float(made.sum()) == 2000
    with dtrain.cuda.stream(side):
        more = made * 2
    dtrain.cuda.synchronize()
    assert float(more.sum()) == 4000


def test_current_stream_nests_and_comes_back():
    before = dtrain.cuda.current_stream()
    first, second = dtrain.cuda.Stream(), dtrain.cuda.Stream()
    with dtrain.cuda.stream(first):
        with dtrain.cuda.stream(second), dtrain.cuda.stream(None):
            assert dtrain.cuda.current_stream() == second
        assert dtrain.cuda.current_stream() == first != second
    assert dtrain.cuda.current_stream() == before == dtrain.cuda.default_stream()


def test_stream_of_another_device_makes_it_current(second_gpu):
    stream = dtrain.cuda.Stream(second_gpu)
    assert str(stream.device) == second_gpu and stream.cuda_stream > 0
    with dtrain.cuda.stream(stream):
        assert cuda.current_device() == 1
        made = cuda.cupy().zeros(3)
        assert made.device.id == 1
    assert cuda.current_device() == 0


def test_set_stream():
    stream, before = dtrain.cuda.Stream(), dtrain.cuda.current_stream()
    dtrain.cuda.set_stream(stream)
    try:
        assert dtrain.cuda.current_stream() == stream
    finally:
        dtrain.cuda.set_stream(before)
    assert dtrain.cuda.current_stream() == before


def test_events_measure_time():
    start, end = dtrain.cuda.Event(enable_timing=True), dtrain.cuda.Event(enable_timing=True)
    assert start.query()
    start.record()
    fill(1.0)
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) >= 0


def test_copies_between_gpus_wait_for_their_source(second_gpu):
    side = dtrain.cuda.Stream("cuda:0")
    with dtrain.cuda.stream(side):
        made = move(normal(100), device("cuda:0")) * 2
        there = move(made, device(second_gpu))
        made *= 0  # after the copy, though the copy runs on the other device
    np.testing.assert_array_equal(cuda.to_cpu(there), normal(100) * 2)


@pytest.mark.parametrize("priority", [0, -1])
def test_priorities(priority):
    assert dtrain.cuda.Stream(priority=priority).query()
