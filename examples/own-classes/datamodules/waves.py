"""Noisy waves of three shapes."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

SHAPES = ("sine", "square", "sawtooth")


def make_waves(count: int, noise: float, seed: int) -> TensorDataset:
    """Return waves of 32 points with a random phase, and the index of their shape."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.randint(len(SHAPES), (count,), generator=generator)
    cycles = torch.linspace(0, 2, 32) + torch.rand(count, 1, generator=generator)
    sine = torch.sin(2 * torch.pi * cycles)
    waves = torch.stack([sine, sine.sign(), 2 * (cycles % 1) - 1])[shapes, torch.arange(count)]
    return TensorDataset(waves + noise * torch.randn(count, 32, generator=generator), shapes)


class Waves(LightningDataModule):
    def __init__(self, batch_size: int = 32, noise: float = 0.3) -> None:
        super().__init__()
        self.batch_size, self.noise = batch_size, noise

    def setup(self, stage: str) -> None:
        self.train, self.val, self.test = (
            make_waves(count, self.noise, seed) for seed, count in enumerate((600, 200, 200))
        )

    def train_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.test, self.batch_size)
