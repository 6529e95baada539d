"""Batch normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

from dtrain.autograd.tensor import Tensor
from dtrain.backend import dtypes
from dtrain.errors import ShapeError
from dtrain.nn import functional as F
from dtrain.nn.norm import _Affine
from dtrain.ops.creation import ones, tensor, zeros


class _BatchNorm(_Affine):
    """Each channel (dim 1) normalised over the batch and all positions (Ioffe and Szegedy 2015).

    In training the batch's statistics are used and the running ones updated by ``momentum`` (None: their plain mean);
    in evaluation the running ones are used, unless ``track_running_stats`` is False.
    """

    _version = 2
    ndims: ClassVar[tuple[int, ...]]
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine, self.track_running_stats = num_features, eps, momentum, affine, track_running_stats
        if track_running_stats:
            self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype))
            self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", tensor(0, dtype=dtypes.int64, device=device))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self._make((num_features,), affine, affine and bias, device, dtype)

    def reset_running_stats(self) -> None:
        """Running mean 0, variance 1, no batches seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Running statistics, weight and bias as in a new layer."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.ndims or input.shape[1] != self.num_features:
            layout = " or ".join(f"{n}-D" for n in self.ndims)
            raise ShapeError(f"expected a {layout} input with {self.num_features} channels in dim 1, got shape {tuple(input.shape)}")
        momentum = 0.0 if self.momentum is None else self.momentum
        updates = self.training and self.track_running_stats
        if updates and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        by_batch = self.training or (self.running_mean is None and self.running_var is None)
        running = (self.running_mean, self.running_var) if updates or not self.training else (None, None)
        return F.batch_norm(input, *running, self.weight, self.bias, by_batch, momentum, self.eps)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *rest: Any) -> None:
        """Dicts from before version 2, and those without metadata, may lack ``num_batches_tracked``."""
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.track_running_stats and key not in state_dict:
            state_dict[key] = self.num_batches_tracked.detach().clone()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Over (batch, channels) or (batch, channels, length)."""

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Over (batch, channels, height, width)."""

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Over (batch, channels, depth, height, width)."""

    ndims = (5,)
