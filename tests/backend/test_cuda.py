"""CUDA's absence and its reasons, the current device, and work on the right device."""

import multiprocessing
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import dtrain
import dtrain.cuda
from dtrain.backend import cuda, state
from dtrain.backend.device import device, move, resolve
from dtrain.errors import DeviceError
from tests.util import normal


def run_python(code, **environment):
    """Output of a fresh Python, which has no stand-in."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


HIDE = "import sys; sys.modules['cupy'] = None\n"  # importing it raises ModuleNotFoundError, as when it is not installed


def test_without_cuda_the_namespace_tells_the_truth():
    code = HIDE + "from dtrain.cuda import *\n" + (
        "import dtrain.cuda as c\n"
        "print(c.is_available(), c.device_count(), c.is_initialized(), c.is_bf16_supported(), c.get_arch_list())\n"
        "c.empty_cache(); c.manual_seed_all(1)\n"
        "for f in (c.current_device, c.synchronize, c.memory_allocated, c.init, c.Stream, lambda: c.set_device(0)):\n"
        "    try: f()\n"
        "    except RuntimeError as e: print(type(e).__name__)\n"
    )
    assert run_python(code) == "False 0 False False []\n" + "DeviceError\n" * 6


def test_importing_the_namespace_loads_no_cupy():
    assert run_python("import sys, dtrain.cuda, dtrain.backend.device\nprint('cupy' in sys.modules)") == "False\n"


class Broken(SimpleNamespace):
    """A CuPy whose machine lacks something."""

    def __init__(self, count=1, driver=12090, fails=None, nvrtc=True, cublas=True):
        def getDeviceCount():
            if fails:
                raise RuntimeError(fails)
            return count

        def getVersion():
            if not nvrtc:
                raise RuntimeError('Failure finding "libnvrtc.so.12"\nmore lines')

        runtime = SimpleNamespace(getDeviceCount=getDeviceCount, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: 12090)
        inside = SimpleNamespace(runtime=runtime, nvrtc=SimpleNamespace(getVersion=getVersion))
        if cublas:
            inside.cublas = SimpleNamespace(create=None)
        super().__init__(cuda=inside, __version__="14")


@pytest.mark.parametrize(
    "machine, says",
    [
        (Broken(fails="cudaErrorNoDevice: no CUDA-capable device is detected"), "shows no GPU.*CUDA_VISIBLE_DEVICES is ''"),
        (Broken(count=0), "shows no GPU"),
        (Broken(fails="cudaErrorInsufficientDriver: x", driver=0), "no NVIDIA driver"),
        (Broken(fails="cudaErrorInsufficientDriver: x", driver=11080), "supports CUDA 11.8, this CuPy was built for 12.9"),
        (Broken(fails="cudaErrorUnknown: what"), "failed to start .*cudaErrorUnknown"),
        (Broken(nvrtc=False), r"not the NVRTC library .*libnvrtc.*cupy-cuda12x\[ctk\]"),
        (Broken(cublas=False), r"not the cuBLAS library.*\[ctk\]"),
    ],
)
def test_what_is_missing_is_said(monkeypatch, machine, says):
    monkeypatch.setattr(cuda, "_cupy", None)
    monkeypatch.setitem(sys.modules, "cupy", machine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not cuda.is_available() and cuda.device_count() == 0
    with pytest.raises(DeviceError, match="CUDA was asked for, but .*" + says):
        cuda.cupy()


def test_missing_cupy_and_missing_driver_are_told_apart(monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", None)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'dtrain[cuda12]'" in cuda.why_not()
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda, "_has_driver", lambda: False)
    assert "no NVIDIA driver" in cuda.why_not()


def test_asking_for_an_absent_gpu_raises(no_cuda):
    for ask in (lambda: resolve("cuda"), lambda: move(normal(2), device("cuda:0")), lambda: cuda.set_device(0)):
        with pytest.raises(DeviceError, match="no NVIDIA driver"):
            ask()


def test_a_forked_child_is_told_why_it_has_no_cuda():
    cuda.cupy()
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: send.send((cuda.is_available(), cuda.why_not())))
    child.start()
    available, reason = receive.recv()
    child.join()
    assert not available and "forked" in reason and "spawn" in reason
    assert cuda.is_available()


def test_set_device_holds_in_all_threads_of_the_rank(second_gpu):
    cuda.set_device(1)
    try:
        seen = []
        thread = threading.Thread(target=lambda: seen.append((cuda.current_device(), str(resolve("cuda")))))
        thread.start()
        thread.join()
        assert seen == [(1, "cuda:1")] and cuda.current_device() == 1
    finally:
        cuda.set_device(0)


def test_ranks_as_threads_have_devices_of_their_own(second_gpu):
    with state.use_rank(state.RankState()):
        cuda.set_device(1)
        assert cuda.current_device() == 1
    cuda.set_device(0)
    assert cuda.current_device() == 0


@pytest.mark.parametrize("where", [0, "cuda", "cuda:0", device("cuda:0"), None])
def test_ways_to_name_a_device(where):
    assert cuda.index_of(where) == 0


@pytest.mark.parametrize("where, says", [("cpu", "expected a CUDA device, got cpu"), (99, "cuda:99"), ("cuda:99", "cuda:99")])
def test_wrong_devices(where, says):
    with pytest.raises(DeviceError, match=says):
        dtrain.cuda.set_device(where)


def test_device_context_restores(second_gpu):
    with dtrain.cuda.device(1):
        assert cuda.current_device() == 1 and cuda.cupy().cuda.Device().id == 1
        with dtrain.cuda.device(-1), dtrain.cuda.device(None), dtrain.cuda.device("cuda:0"):
            assert cuda.current_device() == 0
        assert cuda.current_device() == 1
    assert cuda.current_device() == 0 and cuda.cupy().cuda.Device().id == 0


def test_guard_makes_the_arrays_device_current(second_gpu):
    there = move(normal(3), device(second_gpu))
    with cuda.guard([None, 2.0, np.ones(3), there, there]):
        assert cuda.cupy().cuda.Device().id == 1
        np.testing.assert_array_equal((there + 1).get(), normal(3) + 1)
    assert cuda.cupy().cuda.Device().id == 0
    with cuda.guard([np.ones(3)]), cuda.guard([]):
        assert cuda.cupy().cuda.Device().id == 0


def test_guard_refuses_arrays_of_two_devices(second_gpu):
    with pytest.raises(DeviceError, match="got cuda:1 and cuda:0.*move them"):
        cuda.guard([move(normal(3), device("cuda:1")), move(normal(3), device("cuda:0"))])


def test_properties():
    found = dtrain.cuda.get_device_properties("cuda")
    assert found.name == dtrain.cuda.get_device_name() and found.total_memory > 1 << 30 and found.multi_processor_count > 0
    assert dtrain.cuda.get_device_capability() == (found.major, found.minor)
    assert f"sm_{found.major}{found.minor}" in dtrain.cuda.get_arch_list()


def test_peers(second_gpu):
    assert dtrain.cuda.can_device_access_peer(0, 0) is False
    assert dtrain.cuda.can_device_access_peer(0, second_gpu) in (True, False)


def test_seeds_belong_to_devices(second_gpu):
    dtrain.cuda.manual_seed_all(7)
    places = dtrain.cuda.get_rng_state_all()
    assert dtrain.cuda.initial_seed() == 7 and len(places) == dtrain.cuda.device_count()
    first = dtrain.rand(5, device="cuda:0").cpu()
    with dtrain.cuda.device(1):
        dtrain.cuda.manual_seed(8)
        assert dtrain.cuda.initial_seed() == 8
    assert dtrain.cuda.initial_seed() == 7
    dtrain.cuda.set_rng_state_all(places)
    assert dtrain.rand(5, device="cuda:0").cpu().equal(first) and dtrain.rand(5, device=second_gpu).cpu().equal(first)
    dtrain.cuda.seed()
    assert dtrain.cuda.initial_seed() != 7


def test_cuda_amp_is_autocast_for_cuda():
    with dtrain.cuda.amp.autocast() as mode:
        assert (mode.device_type, mode.dtype) == ("cuda", dtrain.float16)
    with pytest.raises(AttributeError, match="no attribute 'ampp'"):
        dtrain.cuda.ampp


def test_a_blocking_copy_may_be_followed_by_changing_the_source():
    source = normal(1000)
    there = cuda.to_cuda(source, 0)
    expected = source.copy()
    source[:] = 0
    np.testing.assert_array_equal(cuda.to_cpu(there), expected)
