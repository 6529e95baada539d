"""Core operations against PyTorch: values, dtypes, gradients and second derivatives, one line a case."""

import numpy as np
import pytest
import torch

import dtrain
from tests.ops.core_cases import CASES, data

pytestmark = pytest.mark.parity

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_matches_torch(case, dtype):
    _, function, *operands = case
    arrays = [data(kind, shape, seed) for seed, (kind, shape) in enumerate(operands)]
    arrays = [a.astype(dtype) if a.dtype == np.float64 else np.asarray(a) for a in arrays]
    ours = run(dtrain, function, [dtrain.tensor(a) for a in arrays])
    theirs = run(torch, function, [torch.tensor(a) for a in arrays])
    assert len(ours) == len(theirs)
    for what, (a, b) in zip(("value", "gradient", "gradient", "gradient", "second", "second", "second"), zip(ours, theirs)):
        assert (a is None) == (b is None), what
        if a is not None:
            assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1], what
            assert tuple(a.shape) == tuple(b.shape), what
            tol = 3e-5 if a.dtype == dtrain.float32 else 1e-10
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(force=True), rtol=tol, atol=tol, err_msg=what)


def run(m, function, inputs):
    """The value, the gradients and the gradients of a sum of squared gradients."""
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    wanted = [x for x in inputs if x.requires_grad]
    y = function(m, *inputs)
    out = [y]
    if not y.requires_grad:
        return out
    weight = m.arange(1, y.numel() + 1, dtype=y.dtype).reshape(tuple(y.shape)) / max(y.numel(), 1)
    first = m.autograd.grad((y * weight).sum(), wanted, create_graph=True, allow_unused=True)
    out += first
    total = sum((g * g).sum() for g in first if g is not None)
    if not getattr(total, "requires_grad", False):  # linear, or flat: PyTorch links some of these to zeros, we do not
        return out + [m.zeros_like(x) for x in wanted]
    return out + list(m.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
