"""Which examples each process sees, and in which order."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

NOBODY = -1
"""Stands for no example, where a process has one fewer than the others."""


def seeded(seed: int, epoch: int) -> torch.Generator:
    """A generator for one epoch of one seed.

    seed + epoch, as `DistributedSampler` has it, would give seed 1 the orders of seed 0, one epoch later.
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


class EpochSampler(DistributedSampler[int]):
    """A sampler that shards itself, shuffles by (seed, epoch), and repeats no example to even out the shards.

    It is a `DistributedSampler`, so Lightning leaves it in place and calls `set_epoch`. Every example counts exactly
    once. Process r of W takes every W-th example of the order, from the r-th on: in each step, as long as W divides the
    batch, the processes have together what one process would have alone. In training, where they wait for each other
    at each step, all shards must be equally long: those that are one short end with `NOBODY`.

    Args:
        dataset: What to draw from; only its length is used.
        shuffle: A new order each epoch, or the order of the data.
        rank: This process, 0 to `world_size` - 1.
        world_size: The number of processes that share the data.
        seed: Must be the same in all processes; the default is the seed of `lightning.seed_everything`.
    """

    def __init__(
        self, dataset: Dataset[int], *, shuffle: bool, rank: int = 0, world_size: int = 1, seed: int | None = None
    ) -> None:
        if seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # set by seed_everything, inherited by all ranks
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        start = 0 if self.shuffle else self.rank
        return len(range(start, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def indices(self) -> torch.Tensor:
        """This process's indices in this epoch's order, and perhaps `NOBODY` at the end, shape (len(self),)."""
        own = self._order()[self.rank :: self.num_replicas]
        return torch.cat([own, own.new_full((len(self) - len(own),), NOBODY)])

    def _order(self) -> torch.Tensor:
        n = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return torch.arange(n)
        return torch.randperm(n, generator=seeded(self.seed, self.epoch))
