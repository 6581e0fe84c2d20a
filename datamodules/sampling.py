"""Which examples each process sees, and in which order."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler


class EpochSampler(DistributedSampler[int]):
    """A sampler that shards itself, shuffles by (seed, epoch), and neither drops nor pads.

    It is a `DistributedSampler`, so Lightning leaves it in place and calls `set_epoch`. Unlike its parent it repeats no
    example to even out the shards, so that metrics count every example exactly once.

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
        return len(range(self.rank, self._dataset_size(), self.num_replicas))

    def indices(self) -> torch.Tensor:
        """This process's indices in this epoch's order, shape (len(self),)."""
        n = self._dataset_size()
        if not self.shuffle:
            return torch.arange(n)[self.rank :: self.num_replicas]
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(
            1
        )  # seed + epoch would repeat across seeds
        generator = torch.Generator().manual_seed(int(seed[0]))
        return torch.randperm(n, generator=generator)[self.rank :: self.num_replicas]

    def _dataset_size(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]
