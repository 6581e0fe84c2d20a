"""Samplers: which examples each process sees, and in which order."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

PAD_INDEX = -1
"""Index without an example. Pads the shard of a process that has one example fewer than the others."""


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return a random generator for one epoch of one seed.

    With seed + epoch, as in `DistributedSampler`, seed 1 would have the orders of seed 0, shifted by one epoch.
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def global_seed() -> int:
    """Return the seed of `lightning.seed_everything`, which all ranks inherit; 0 without it."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class EpochSampler(DistributedSampler[int]):
    """Distributed sampler that shuffles by (seed, epoch) and never repeats an example to make shards equally long.

    It is a `DistributedSampler`, so Lightning keeps it and calls `set_epoch`. Every example counts exactly once.
    Process r of W takes every W-th example of the order, starting at the r-th: in each step, if W divides the batch
    size, all processes together have the same examples as a single process would have. In training, where processes
    synchronise in each step, all shards must have the same length: a shard that is one short ends with `PAD_INDEX`.

    Args:
        dataset: Dataset to sample from. Only its length is used.
        shuffle: Whether each epoch has a new random order; if not, the order is that of the data.
        rank: Rank of this process, 0 to `world_size` - 1.
        world_size: Number of processes that share the data.
        seed: Random seed, the same in all processes; the default is the seed of `lightning.seed_everything`.
    """

    def __init__(
        self, dataset: Dataset[int], *, shuffle: bool, rank: int = 0, world_size: int = 1, seed: int | None = None
    ) -> None:
        if seed is None:
            seed = global_seed()
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        start = 0 if self.shuffle else self.rank
        return len(range(start, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def indices(self) -> torch.Tensor:
        """Return this process's indices in the order of the epoch, padded with `PAD_INDEX`, shape (len(self),)."""
        shard = self._epoch_order()[self.rank :: self.num_replicas]
        return torch.cat([shard, shard.new_full((len(self) - len(shard),), PAD_INDEX)])

    def _epoch_order(self) -> torch.Tensor:
        n = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return torch.arange(n)
        return torch.randperm(n, generator=epoch_generator(self.seed, self.epoch))
