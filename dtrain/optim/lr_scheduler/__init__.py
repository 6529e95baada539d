"""Learning-rate schedules, as in torch.optim.lr_scheduler."""

from dtrain.optim.lr_scheduler.base import LRScheduler, _LRScheduler
from dtrain.optim.lr_scheduler.compose import ChainedScheduler, SequentialLR
from dtrain.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR
from dtrain.optim.lr_scheduler.plateau import ReduceLROnPlateau
from dtrain.optim.lr_scheduler.simple import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR",
    "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR", "_LRScheduler",
]  # fmt: skip
