"""Kernels of CUDA source text run on the stand-in's arrays."""

import numpy as np
import pytest

from tests.standin.devices import OrderError

SOURCE = """
extern "C" __global__ void scale(const float* x, float* y, float by, long long n) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * by;
}
"""


@pytest.fixture
def scale(cp):
    kernel = cp.RawModule(code=SOURCE, options=("--std=c++17",)).get_function("scale")
    return lambda x, y: kernel((2,), (64,), (x, y, np.float32(3), np.int64(x.size)))


def test_a_kernel_runs(cp, scale):
    x = cp.arange(100, dtype=np.float32)
    for _ in range(3):  # one launch in each order of threads
        y = cp.empty_like(x)
        scale(x, y)
        np.testing.assert_array_equal(y.get(), np.arange(100, dtype=np.float32) * 3)


def test_kernels_keep_to_their_stream_and_device(cp, scale):
    x, y = cp.arange(100, dtype=np.float32), cp.empty(100, np.float32)
    with cp.cuda.Stream(non_blocking=True), pytest.raises(OrderError):
        scale(x, y)
    with cp.cuda.Device(1), pytest.raises(ValueError, match="different from the current device"):
        scale(x, y)


@pytest.mark.parametrize(
    "block, argument, error, says",
    [
        ((2048,), None, RuntimeError, "at most 1024 threads"),
        (64, None, TypeError, "tuples"),
        ((64,), np.ones(3, np.float32), TypeError, "Pass a cupy.ndarray instead"),
        ((64,), "text", TypeError, "Unsupported type"),
        ((64,), 3.0, RuntimeError, "scale"),  # a Python float is a double, the parameter a float
    ],
)
def test_what_a_launch_refuses(cp, block, argument, error, says):
    x = cp.arange(100, dtype=np.float32)
    by = np.float32(3) if argument is None else argument
    kernel = cp.RawKernel(SOURCE, "scale")
    with pytest.raises(error, match=says):
        kernel((2,), block, (x, x, by, np.int64(100)))
