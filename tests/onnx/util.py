"""Running exported models in onnxruntime."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import onnxruntime

import dtrain
import dtrain.onnx
from dtrain.onnx.export import flatten
from tests.util import to_numpy


def session(model: Any) -> onnxruntime.InferenceSession:
    """A session of a ModelProto or a path, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs for inputs in order."""
    return model.run(None, {spec.name: np.ascontiguousarray(array) for spec, array in zip(model.get_inputs(), inputs)})


def compare(fn: Callable, model: onnxruntime.InferenceSession, inputs: list[np.ndarray], tolerance: float = 1e-5) -> float:
    """Assert that onnxruntime gives what ``fn`` gives, in shapes, dtypes and values; returns the largest difference."""
    with dtrain.no_grad():
        expected = [to_numpy(t) for t in flatten(fn(*[dtrain.tensor(a) for a in inputs]))]
    found = run(model, inputs)
    assert len(found) == len(expected)
    worst = 0.0
    for i, (a, b) in enumerate(zip(found, expected)):
        assert a.shape == b.shape and a.dtype == b.dtype, f"output {i}: {a.shape} {a.dtype}, dtrain gives {b.shape} {b.dtype}"
        a, b = a.astype(np.float64), b.astype(np.float64)
        np.testing.assert_allclose(a, b, tolerance, tolerance, err_msg=f"output {i}")
        finite = np.isfinite(b)
        worst = max(worst, float(np.abs(a[finite] - b[finite]).max(initial=0)))
    return worst
