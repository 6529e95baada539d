"""Every operation that can be exported, in onnxruntime, at other sizes than those it was exported at."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import dtrain
import dtrain.onnx
import dtrain.ops
from dtrain.autograd.op import Op
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
    tolerance = {"halves": 2e-3, "bfloat16": 2e-2, "autocast": 2e-2}.get(name, 2e-5)
    sizes = [s for s in (EXAMPLE, *SIZES) if fits(name, s)]
    assert len(sizes) > 2
    for i, s in enumerate(sizes):
        compare(fn, model, arrays(specs, s, seed=i + 1), tolerance)


@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23])
@pytest.mark.parametrize("name", ["activations", "sum", "amax", "causal attention", "layer norm", "group norm", "cumsum", "reshape", "slices"])
def test_other_opsets(name, opset):
    fn, *specs = CASES[name]
    compare(fn, exported(name, opset_version=opset), arrays(specs, SIZES[1]), 2e-5)


def operations(name: str) -> set[str]:
    """The class names of the operations that a case runs."""
    fn, *specs = CASES[name]
    inputs = [dtrain.tensor(a) for a in arrays(specs, EXAMPLE)]
    tracer = Tracer()
    with tracer.on():
        for x in inputs:
            tracer.mark(x, [])
        flatten(fn(*inputs))
    return {step.name for step in tracer.steps}


ELSEWHERE = {"Dropout", "ToDevice"}  # tested in test_errors.py and test_models.py


def test_every_converter_is_tried():
    tried = set().union(*map(operations, CASES))
    assert set(CONVERTERS) - tried == ELSEWHERE
    assert tried <= set(CONVERTERS)


def every_operation(base: type = Op) -> set[str]:
    return {base.__name__}.union(*[every_operation(kind) for kind in base.__subclasses__()])


def test_every_converter_is_for_an_operation():
    for module in pkgutil.iter_modules(dtrain.ops.__path__):
        importlib.import_module(f"dtrain.ops.{module.name}")
    assert set(CONVERTERS) <= every_operation()
