"""A small CNN on scikit-learn's 8x8 handwritten digits; above 97 % on the held-out quarter.

    python examples/digits_cnn.py
    dtrain run -n 2 examples/digits_cnn.py

Needs `pip install scikit-learn`.
"""

from __future__ import annotations

import os

import numpy as np
from sklearn.datasets import load_digits

import dtrain
import dtrain.distributed as dist
from dtrain import nn, optim
from dtrain.data import DataLoader, DistributedSampler, TensorDataset
from dtrain.nn import functional as F
from dtrain.nn.parallel import DistributedDataParallel as DDP

EPOCHS = 12  # about ten seconds on one core
BATCH = 64  # over all ranks, so that the result hardly depends on their number
LEARNING_RATE = 3e-3
SEED = 0


def datasets() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, (n, 1, 8, 8) in [0, 1], with labels; a fixed quarter is for the test."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    cut = len(order) * 3 // 4
    tensors = [dtrain.from_numpy(a) for a in (images[:cut], labels[:cut], images[cut:], labels[cut:])]
    return TensorDataset(*tensors[:2]), TensorDataset(*tensors[2:])


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


@dtrain.no_grad()
def accuracy(model: nn.Module, test: TensorDataset) -> float:
    model.eval()
    images, labels = test.tensors
    hits = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return hits


def main() -> None:
    dist.init_process_group()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    dtrain.manual_seed(SEED)
    train, test = datasets()
    sampler = DistributedSampler(train, num_replicas=ranks, rank=rank, seed=SEED)
    loader = DataLoader(train, batch_size=BATCH // ranks, sampler=sampler)
    model = make_model()
    ddp = DDP(model)
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for epoch in range(1 if os.environ.get("DTRAIN_SMOKE") == "1" else EPOCHS):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            loss = F.cross_entropy(ddp(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy(model, test):.2%}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
