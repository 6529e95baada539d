"""Every operation that can be exported, in onnxruntime, at other sizes than those it was exported at."""

from __future__ import annotations

import numpy as np
import pytest

import dtrain
import dtrain.onnx
from dtrain.onnx.convert import CONVERTERS
from dtrain.onnx.export import flatten
from dtrain.onnx.trace import Tracer
from tests.onnx.cases import CASES, EXAMPLE, SIZES, arrays, axes
from tests.onnx.util import compare, session


def exported(name: str, **options):
    fn, *specs = CASES[name]
    example = tuple(dtrain.tensor(a) for a in arrays(specs, EXAMPLE))
    names = [f"x{i}" for i in range(len(specs))]
    return session(dtrain.onnx.export(fn, example, input_names=names, dynamic_axes=axes(specs), **options))


def fits(name: str, sizes: dict) -> bool:
    """Whether dtrain itself takes the case at these sizes."""
    fn, *specs = CASES[name]
    try:
        fn(*[dtrain.tensor(a) for a in arrays(specs, sizes)])
    except dtrain.errors.DtrainError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_operation(name):
    fn, *specs = CASES[name]
    model = exported(name)
    tolerance = {"halves": 2e-3, "bfloat16": 2e-2}.get(name, 2e-5)
    sizes = [s for s in (EXAMPLE, *SIZES) if fits(name, s)]
    assert len(sizes) > 2
    for i, s in enumerate(sizes):
        compare(fn, model, arrays(specs, s, seed=i + 1), tolerance)
