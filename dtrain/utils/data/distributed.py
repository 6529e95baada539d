"""`torch.utils.data.distributed`'s module path."""

from dtrain.data import (DistributedSampler)  # noqa: F401
