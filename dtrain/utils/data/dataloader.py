"""`torch.utils.data.dataloader`'s module path."""

from dtrain.data import (DataLoader, default_collate, default_convert, get_worker_info)  # noqa: F401
