"""Instance normalisation."""

from __future__ import annotations

from typing import Any

from dtrain.autograd.tensor import Tensor
from dtrain.errors import ShapeError
from dtrain.nn import functional as F
from dtrain.nn.batchnorm import _BatchNorm


class _InstanceNorm(_BatchNorm):
    """Each channel of each item normalised over its positions (Ulyanov et al. 2016); inputs with or without a batch dim.

    With ``track_running_stats`` evaluation uses the statistics gathered in training.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        single = input.ndim == self.ndims[0]
        if input.ndim not in self.ndims or input.shape[0 if single else 1] != self.num_features:
            raise ShapeError(
                f"expected a {self.ndims[1]}-D input with {self.num_features} channels in dim 1, or the same without batch, "
                f"got shape {tuple(input.shape)}"
            )
        by_input = self.training or not self.track_running_stats
        x: Any = input[None] if single else input  # type: ignore[index]
        out: Any = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias, by_input, self.momentum or 0.0, self.eps)
        return out[0] if single else out


class InstanceNorm1d(_InstanceNorm):
    """Over (batch, channels, length)."""

    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Over (batch, channels, height, width)."""

    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Over (batch, channels, depth, height, width)."""

    ndims = (4, 5)
