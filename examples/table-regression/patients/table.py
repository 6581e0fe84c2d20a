"""A CSV file with a column for each feature and one for the target."""

import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class Table(LightningDataModule):
    """Rows of a CSV file: 70 % for training, 15 % for validation, 15 % for the test, in a random order.

    Features are standardised with the mean and standard deviation of the training rows.
    """

    def __init__(self, path: str, target: str, batch_size: int = 32, split_seed: int = 0) -> None:
        super().__init__()
        self.path, self.target, self.batch_size, self.split_seed = path, target, batch_size, split_seed

    def setup(self, stage: str) -> None:
        rows = pd.read_csv(self.path).sample(frac=1, random_state=self.split_seed)
        features = torch.tensor(rows.drop(columns=self.target).to_numpy(), dtype=torch.float32)
        targets = torch.tensor(rows[self.target].to_numpy(), dtype=torch.float32)
        first, second = int(0.7 * len(rows)), int(0.85 * len(rows))
        features = (features - features[:first].mean(0)) / features[:first].std(0)
        parts = slice(first), slice(first, second), slice(second, None)
        self.train, self.val, self.test = (TensorDataset(features[part], targets[part]) for part in parts)

    def train_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[list[Tensor]]:
        return DataLoader(self.test, self.batch_size)
