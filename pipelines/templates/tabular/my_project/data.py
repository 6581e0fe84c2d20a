"""A table: scikit-learn's diabetes data, 442 patients with ten measurements each (Efron et al., 2004)."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split

from datamodules.folds import Fold

Batch = list[Tensor]


def load() -> tuple[Tensor, Tensor]:
    """Return features, shape (rows, columns), and targets, shape (rows,). Replace it by code that reads your own.

    For example: table = pandas.read_csv("data/table.csv"); features = table.drop(columns="target").
    """
    from sklearn.datasets import load_diabetes

    features, targets = load_diabetes(return_X_y=True)
    return torch.tensor(features, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


class Table(LightningDataModule):
    """Rows of a table, split at random: 15 % for the test, and a sixth of the others for validation.

    With `litlab fit --folds 5`, each fifth of the others validates once.

    Features and targets are standardised with the mean and standard deviation of the training rows.

    Args:
        batch_size: Rows per step.
        split_seed: Seed of the split.
        folds: Number of folds, which `--folds` gives.
        fold: Index of the one that validates.
    """

    def __init__(
        self, batch_size: int = 32, split_seed: int = 0, folds: int | None = None, fold: int | None = None
    ) -> None:
        super().__init__()
        self.batch_size, self.split_seed = batch_size, split_seed
        self.fold = Fold.of(folds, fold, split_seed) or Fold(6, 0, split_seed)

    def setup(self, stage: str) -> None:
        features, targets = load()
        generator = torch.Generator().manual_seed(self.split_seed)
        parts = random_split(range(len(targets)), [0.85, 0.15], generator)
        others, test = (torch.tensor(part.indices) for part in parts)
        train, val = (others[rows] for rows in self.fold.split(len(others), strata_N=None))
        features = (features - features[train].mean(0)) / features[train].std(0)
        targets = (targets - targets[train].mean()) / targets[train].std()
        self.train_set, self.val_set, self.test_set = (
            TensorDataset(features[rows], targets[rows]) for rows in (train, val, test)
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val_set, self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.test_set, self.batch_size)
