"""Optimizers and learning-rate schedules, as in torch.optim."""

from dtrain.optim import lr_scheduler
from dtrain.optim.adam import Adam
from dtrain.optim.adamw import AdamW
from dtrain.optim.optimizer import Optimizer
from dtrain.optim.sgd import SGD

__all__ = ["Adam", "AdamW", "Optimizer", "SGD", "lr_scheduler"]


def __getattr__(name: str) -> object:
    from dtrain.absent import attribute_error

    raise attribute_error(__name__, name, globals())
