"""The core operations: gradients against finite differences to second order, and values that are the same on every device."""

import numpy as np
import pytest

import dtrain
from tests.ops.core_cases import CASES, data
from tests.ops.util import check_grad, to_numpy

IDS = [case[0] for case in CASES]


def operands_of(case):
    return [np.asarray(data(kind, shape, seed)) for seed, (kind, shape) in enumerate(case[2:])]


def smooth(case):
    """Whether some operand can carry a gradient to the result."""
    out = case[1](dtrain, *[dtrain.tensor(a).requires_grad_() if a.dtype == np.float64 else dtrain.tensor(a) for a in operands_of(case)])
    return out.requires_grad


@pytest.mark.parametrize("case", [c for c in CASES if smooth(c)], ids=lambda c: c[0])
def test_gradients(case, device):
    check_grad(lambda *xs: case[1](dtrain, *xs), *operands_of(case), device=device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_devices_agree(case, dtype):
    arrays = [a.astype(dtype) if a.dtype == np.float64 else a for a in operands_of(case)]
    cpu, gpu = [case[1](dtrain, *[dtrain.tensor(a, device=place) for a in arrays]) for place in ("cpu", "cuda:0")]
    assert str(gpu.device) == "cuda:0" and cpu.dtype is gpu.dtype and tuple(cpu.shape) == tuple(gpu.shape)
    np.testing.assert_allclose(to_numpy(gpu), to_numpy(cpu), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_meta_knows_shape_and_dtype(case):
    if case[0] in DATA_DEPENDENT:
        with pytest.raises((RuntimeError, ValueError)):
            case[1](dtrain, *[dtrain.tensor(a, device="meta") for a in operands_of(case)])
        return
    arrays = operands_of(case)
    real = case[1](dtrain, *[dtrain.tensor(a) for a in arrays])
    planned = case[1](dtrain, *[dtrain.tensor(a, device="meta") for a in arrays])
    assert planned.is_meta and tuple(planned.shape) == tuple(real.shape) and planned.dtype is real.dtype


# the number of results depends on the values, which meta tensors do not have
DATA_DEPENDENT = {"setitem mask", "index mask", "index mask row", "masked_select", "nonzero"}
