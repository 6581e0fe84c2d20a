"""A table: scikit-learn's diabetes data, 442 patients with ten measurements each (Efron et al., 2004)."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split

Batch = list[Tensor]


def load() -> tuple[Tensor, Tensor]:
    """Return features, shape (rows, columns), and targets, shape (rows,). Replace it by code that reads your own.

    For example: table = pandas.read_csv("data/table.csv"); features = table.drop(columns="target").
    """
    from sklearn.datasets import load_diabetes

    features, targets = load_diabetes(return_X_y=True)
    return torch.tensor(features, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


class Table(LightningDataModule):
    """Rows of a table, split at random into 70 % for training, 15 % for validation and 15 % for the test.

    Features and targets are standardised with the mean and standard deviation of the training rows.

    Args:
        batch_size: Rows per step.
        split_seed: Seed of the split.
    """

    def __init__(self, batch_size: int = 32, split_seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.split_seed = batch_size, split_seed

    def setup(self, stage: str) -> None:
        features, targets = load()
        generator = torch.Generator().manual_seed(self.split_seed)
        parts = random_split(range(len(targets)), [0.7, 0.15, 0.15], generator)
        rows = torch.tensor(parts[0].indices)
        features = (features - features[rows].mean(0)) / features[rows].std(0)
        targets = (targets - targets[rows].mean()) / targets[rows].std()
        self.train_set, self.val_set, self.test_set = (
            TensorDataset(features[part.indices], targets[part.indices]) for part in parts
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val_set, self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.test_set, self.batch_size)
