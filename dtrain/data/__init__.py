"""Datasets, samplers, loaders and sharded corpora; torch.utils.data's names and semantics where PyTorch has the thing."""

from dtrain.data.collate import default_collate, default_convert
from dtrain.data.dataloader import DataLoader
from dtrain.data.dataset import (ChainDataset, ConcatDataset, Dataset, IterableDataset, StackDataset, Subset, TensorDataset,
                                 random_split)
from dtrain.data.distributed import DistributedSampler
from dtrain.data.sampler import (BatchSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler,
                                 WeightedRandomSampler)
from dtrain.data.shards import write_shards
from dtrain.data.token_loader import TokenLoader
from dtrain.data.tokens import TokenDataset
from dtrain.data.worker import get_worker_info

__all__ = ["BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "IterableDataset",
           "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset", "SubsetRandomSampler", "TensorDataset",
           "TokenDataset", "TokenLoader", "WeightedRandomSampler", "default_collate", "default_convert", "get_worker_info",
           "random_split", "write_shards"]
