"""A small network for regression."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn


class Regression(LightningModule):
    """One hidden layer, trained with the mean squared error.

    Args:
        num_features: Columns of the table without the target.
        hidden: Units of the hidden layer.
        dropout: Dropout rate after the hidden layer.
        lr: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
    """

    def __init__(
        self, num_features: int, hidden: int = 32, dropout: float = 0.0, lr: float = 0.003, weight_decay: float = 0.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        values: Tensor = self.net(features)[:, 0]
        return values

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss(batch, "test")

    def _loss(self, batch: list[Tensor], split: str) -> Tensor:
        features, targets = batch
        loss = nn.functional.mse_loss(self(features), targets)
        self.log(f"{split}/loss", loss, on_epoch=True, on_step=False, batch_size=len(targets))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])
