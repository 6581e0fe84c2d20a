"""A small network for regression, which reports errors in the unit of the target."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import MeanSquaredError


class Regression(LightningModule):
    """One hidden layer, trained with the squared error. `scale` is about the size of the target."""

    def __init__(self, num_features: int, hidden: int = 32, scale: float = 100.0, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.val_rmse, self.test_rmse = MeanSquaredError(squared=False), MeanSquaredError(squared=False)

    def forward(self, features: Tensor) -> Tensor:
        values: Tensor = self.hparams["scale"] * self.net(features)[:, 0]
        return values

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        features, targets = batch
        return mse_loss(self(features), targets) / self.hparams["scale"] ** 2

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.val_rmse(self(batch[0]), batch[1])
        self.log("val_rmse", self.val_rmse)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.test_rmse(self(batch[0]), batch[1])
        self.log("test_rmse", self.test_rmse)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
