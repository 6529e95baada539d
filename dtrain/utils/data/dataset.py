"""`torch.utils.data.dataset`'s module path."""

from dtrain.data import (ChainDataset, ConcatDataset, Dataset, IterableDataset, StackDataset, Subset,  # noqa: F401
                         TensorDataset, random_split)
