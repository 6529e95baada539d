"""The CUDA GELU: its own source executed on the CPU in three orders of threads, and launched through `backend.kernels`."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import dtrain
from dtrain.backend import cuda, kernels, native
from tests.kernels import reference
from tests.kernels.shim_build import ORDERS, run_kernel

SOURCE = Path(kernels.ROOT) / "cuda" / "gelu.cu"
DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
FENCE = 300         # elements before and behind each array that nobody may touch


def fenced(values, fence):
    """A copy of an array between two fences, and the memory it lies in."""
    memory = np.full(values.size + 2 * FENCE, fence, values.dtype)
    memory[FENCE:-FENCE] = values
    return memory[FENCE:-FENCE], memory


def launch(entry, *arrays, order="forward", blocks=3):
    """Run ``entry`` on fenced copies; the result, with both fences looked at."""
    inputs = [fenced(a, np.nan)[0] for a in arrays]
    out, memory = fenced(np.zeros_like(arrays[0]), 77)
    run_kernel(SOURCE, entry, (blocks,), (256,), (*inputs, out, np.int64(out.size)), order=order, seed=7)
    assert (memory[:FENCE] == 77).all() and (memory[-FENCE:] == 77).all()
    return out


@pytest.mark.parametrize("form", reference.FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_last_digits(dtype, form):
    x = reference.points(DTYPES[dtype])
    assert reference.ulps(launch(f"gelu_{form}_forward_{dtype}", x), x, reference.gelu, form) < 5
    slopes = launch(f"gelu_{form}_backward_{dtype}", np.ones_like(x), x)
    assert reference.ulps(slopes, x, reference.slope, form) < 8


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", reference.FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_in_any_order(dtype, form, order):
    """Sizes below a block, of a block, and beyond the grid; half types are the float result, rounded once."""
    rng = np.random.default_rng(3)
    for n in (1, 256, 1999):
        x, grad = ((rng.normal(size=n) * 3).astype(DTYPES[dtype]) for _ in range(2))
        wide, wide_grad = (a if a.itemsize >= 4 else a.astype(np.float32) for a in (x, grad))
        values, slopes = native.gelu(wide, form), native.gelu_backward(wide_grad, wide, form)
        tolerance = 4 * np.finfo(wide.dtype).eps if a_has_no_fma() else 0
        close(launch(f"gelu_{form}_forward_{dtype}", x, order=order), values.astype(x.dtype), tolerance)
        close(launch(f"gelu_{form}_backward_{dtype}", grad, x, order=order), slopes.astype(x.dtype), tolerance)


def a_has_no_fma():
    """The CUDA kernel and the AVX2 path run one body with fused operations: bit for bit. The portable path splits products."""
    return native.instruction_set() == "portable"


def close(a, b, tolerance):
    np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", reference.FORMS)
def test_through_cupy(dtype, form):
    """On a GPU where there is one, else on the stand-in, whose RawModule runs the same source."""
    cupy = cuda.cupy()
    x = np.random.default_rng(4).normal(size=(7, 191)).astype(DTYPES[dtype])
    wide = x.astype(np.float64)
    with cuda.on(0):
        there = cupy.asarray(x)
        values = cupy.asnumpy(kernels.gelu(there, form))
        slopes = cupy.asnumpy(kernels.gelu_backward(cupy.ones_like(there), there, form))
    assert values.dtype == x.dtype and values.shape == x.shape
    tolerance = 4 * float(ml_dtypes.finfo(x.dtype).eps)
    close(values, native.gelu(wide, form), tolerance)
    close(slopes, native.gelu_backward(np.ones_like(wide), wide, form), tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", reference.FORMS)
def test_the_operation_runs_it(dtype, form, monkeypatch):
    entries, launch = [], kernels.Kernels.launch

    def watched(self, entry, *args, **options):
        entries.append(entry)
        launch(self, entry, *args, **options)

    monkeypatch.setattr(kernels.Kernels, "launch", watched)
    x = dtrain.tensor([-1.0, 0.0, 2.0], dtype=getattr(dtrain, dtype), device="cuda:0", requires_grad=True)
    dtrain.nn.functional.gelu(x, approximate=form).sum().backward()
    assert entries == [f"gelu_{form}_forward_{dtype}", f"gelu_{form}_backward_{dtype}"]
    exact = [float(reference.slope(value, form)) for value in (-1.0, 0.0, 2.0)]
    np.testing.assert_allclose(x.grad.tolist(), exact, atol=4 * np.finfo(dtype).eps)


def test_leaves_to_cupy_what_it_does_not_compute_on():
    cupy = cuda.cupy()
    with cuda.on(0):
        x = cupy.asarray(np.ones((4, 6), np.float32))
        assert kernels.gelu(x[:, ::2]) is None and kernels.gelu(cupy.asarray(np.ones(3, np.int32))) is None
        assert kernels.gelu_backward(cupy.asarray(np.ones((4, 6))), x) is None
        assert kernels.gelu_backward(x[:, ::2], x[:, ::2]) is None
        assert kernels.gelu_backward(x[:2], x) is None
        assert kernels.gelu(x[:0]).shape == (0, 6)


@pytest.mark.gpu
def test_large_array_on_a_gpu():
    cupy = cuda.cupy()
    x = np.random.default_rng(5).normal(size=(1 << 23) + 5).astype(np.float32) * 4
    with cuda.on(0):
        values = cupy.asnumpy(kernels.gelu(cupy.asarray(x)))
    np.testing.assert_allclose(values, native.gelu(x), rtol=1e-6, atol=1e-37)
