"""`torch.utils.data.sampler`'s module path."""

from dtrain.data import (BatchSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler,  # noqa: F401
                         WeightedRandomSampler)
