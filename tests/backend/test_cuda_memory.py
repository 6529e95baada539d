"""Memory figures: what arrays use, what the pool holds, and their peaks."""

import gc

import numpy as np
import pytest

import dtrain.cuda
from dtrain.backend import cuda, cuda_memory
from dtrain.backend.device import device, move
from dtrain.errors import UnsupportedError

MIB = 1 << 20


@pytest.fixture
def clean():
    gc.collect()
    dtrain.cuda.empty_cache()
    dtrain.cuda.reset_peak_memory_stats()


def on_gpu(mib, index=0):
    return move(np.zeros(mib * MIB, np.uint8), device("cuda", index))


def test_use_peak_and_reserve(clean):
    before = dtrain.cuda.memory_allocated()
    first = on_gpu(2)
    assert dtrain.cuda.memory_allocated() - before == 2 * MIB
    second = on_gpu(3)
    del second
    assert dtrain.cuda.memory_allocated() - before == 2 * MIB
    assert dtrain.cuda.max_memory_allocated() - before == 5 * MIB
    assert dtrain.cuda.memory_reserved() >= 5 * MIB and dtrain.cuda.max_memory_reserved() >= 5 * MIB
    dtrain.cuda.empty_cache()
    assert dtrain.cuda.memory_reserved() - dtrain.cuda.memory_allocated() < 3 * MIB
    dtrain.cuda.reset_peak_memory_stats()
    assert dtrain.cuda.max_memory_allocated() - before == 2 * MIB
    del first


def test_views_use_no_memory(clean):
    array = on_gpu(1)
    before = dtrain.cuda.memory_allocated()
    views = [array[10:], array.reshape(2, -1), array.reshape(2, -1).T]
    assert dtrain.cuda.memory_allocated() == before
    del array, views
    assert dtrain.cuda.memory_allocated() == before - MIB


def test_each_device_counts_for_itself(clean, second_gpu):
    before = dtrain.cuda.memory_allocated(0), dtrain.cuda.memory_allocated(1)
    kept = on_gpu(4, 1)
    assert dtrain.cuda.memory_allocated(0) == before[0] and dtrain.cuda.memory_allocated("cuda:1") - before[1] == 4 * MIB
    assert dtrain.cuda.max_memory_allocated(1) - before[1] >= 4 * MIB
    del kept


def test_mem_get_info():
    free, total = dtrain.cuda.mem_get_info()
    assert 0 < free <= total


def test_peaks_are_refused_when_another_allocator_is_installed(monkeypatch):
    monkeypatch.setattr(cuda_memory, "_peak_used", None)
    module = cuda.cupy()
    before = module.cuda.get_allocator()
    module.cuda.set_allocator(lambda size: before(size))
    try:
        cuda_memory.track_peak(module, 1)
        with pytest.raises(UnsupportedError, match="another CuPy allocator"):
            dtrain.cuda.max_memory_allocated()
    finally:
        module.cuda.set_allocator(before)
