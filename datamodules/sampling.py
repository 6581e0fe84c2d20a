"""Which examples each process sees, and in which order."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler


def seeded(seed: int, epoch: int) -> torch.Generator:
    """A generator for one epoch of one seed.

    seed + epoch, as `DistributedSampler` has it, would give seed 1 the orders of seed 0, one epoch later.
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


class EpochSampler(DistributedSampler[int]):
    """A sampler that shards itself, shuffles by (seed, epoch), and repeats no example to even out the shards.

    It is a `DistributedSampler`, so Lightning leaves it in place and calls `set_epoch`. In evaluation every example
    counts exactly once. In training, where processes wait for each other at each step, all shards must be equally long:
    the few examples left over, fewer than there are processes and others in each epoch, are not seen in that epoch.

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
        return len(range(self.rank, self._size(), self.num_replicas))

    def indices(self) -> torch.Tensor:
        """This process's indices in this epoch's order, shape (len(self),)."""
        return self._order()[self.rank : self._size() : self.num_replicas]

    def _order(self) -> torch.Tensor:
        n = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return torch.arange(n)
        return torch.randperm(n, generator=seeded(self.seed, self.epoch))

    def _size(self) -> int:
        n = len(self.dataset)  # type: ignore[arg-type]
        return n - n % self.num_replicas if self.shuffle else n
