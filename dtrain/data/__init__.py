"""Datasets, samplers, loaders and sharded corpora; torch.utils.data's names and semantics where PyTorch has the thing."""

from dtrain.data.dataset import (ChainDataset, ConcatDataset, Dataset, IterableDataset, StackDataset, Subset, TensorDataset,
                                 random_split)
from dtrain.data.shards import write_shards
from dtrain.data.token_loader import TokenLoader
from dtrain.data.tokens import TokenDataset

__all__ = ["ChainDataset", "ConcatDataset", "Dataset", "IterableDataset", "StackDataset", "Subset", "TensorDataset",
           "TokenDataset", "TokenLoader", "random_split", "write_shards"]
