"""Tensors of two devices in one operation: 0-dim CPU tensors travel, others are refused by name."""

import numpy as np
import pytest

import dtrain


def test_a_cpu_scalar_joins_a_gpu_tensor():
    x = dtrain.ones(3, device="cuda:0").requires_grad_()
    scale = dtrain.tensor(2.0).requires_grad_()
    for y in (x * scale, scale * x):
        x.grad = scale.grad = None
        y.sum().backward()
        assert str(y.device) == "cuda:0" and str(scale.grad.device) == "cpu"
        np.testing.assert_array_equal(x.grad.cpu().numpy(), [2, 2, 2])
        assert scale.grad.item() == 3


def test_others_are_refused_with_both_devices():
    with pytest.raises(RuntimeError, match="one device.*cpu.*cuda:0"):
        dtrain.ones(3, device="cuda:0") + dtrain.ones(3)


def test_gradients_cross_devices():
    x = dtrain.ones(3).requires_grad_()
    (x.to("cuda:0") * 3).cpu().sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3, 3])
