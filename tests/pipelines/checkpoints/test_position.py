"""The random generators that a loader has of its own continue where they were."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipelines.checkpoints.position import TrainingPosition


class Sampler:
    """Draws the order of three examples from a generator of its own."""

    def __init__(self, generator, draw):
        self.generator, self._draw = generator, draw

    def __len__(self):
        return 3

    def __iter__(self):
        return iter([self._draw(self.generator) for _ in range(3)])


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: torch.Generator().manual_seed(1), lambda own: int(torch.randint(99, (1,), generator=own))),
        (lambda: np.random.default_rng(1), lambda own: int(own.integers(99))),
        (lambda: np.random.RandomState(1), lambda own: int(own.randint(99))),
        (lambda: random.Random(1), lambda own: own.randrange(99)),
    ],
    ids=["torch", "numpy", "numpy legacy", "python"],
)
def test_a_generator_of_any_library_continues_from_a_checkpoint(tmp_path, make, draw):
    class Source:
        def __init__(self):
            self.loader = DataLoader(range(99), batch_size=1, sampler=Sampler(make(), draw))

        def train_dataloader(self):
            return self.loader

    def loader_of(position):
        source = Source()
        position.follow(source)
        return source.train_dataloader()

    position, resumed = TrainingPosition(), TrainingPosition()
    loader = loader_of(position)
    first = [int(batch) for batch in loader]
    rows = iter(loader)
    second = [int(next(rows))]
    torch.save(position.state(epoch=1, batches=1), tmp_path / "state")
    second += [int(batch) for batch in rows]
    resumed.restore(torch.load(tmp_path / "state", weights_only=True))
    again = loader_of(resumed)
    assert [int(batch) for batch in again] == second[1:]
    assert [int(batch) for batch in again] == [int(batch) for batch in loader]
    assert first != second
