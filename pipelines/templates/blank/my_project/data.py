"""Random numbers, as a placeholder for data."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Batch = list[Tensor]
NUM_FEATURES = 8


def sample(size: int, seed: int) -> TensorDataset:
    """Return random inputs, and whether their sum is positive. Replace it by code that reads your data."""
    inputs = torch.randn(size, NUM_FEATURES, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs.sum(1) > 0).float())


class Data(LightningDataModule):
    """Training, validation and test set, none of which has examples of another.

    Args:
        batch_size: Examples per step.
    """

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sample(512, 0), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sample(256, 1), self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sample(256, 2), self.batch_size)
