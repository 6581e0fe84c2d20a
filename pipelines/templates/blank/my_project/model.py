"""The model. Any LightningModule works: log a validation metric, by which the best epoch is selected."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn


class Model(LightningModule):
    """A network of one hidden layer that answers yes or no.

    Args:
        num_features: Numbers of an input.
        hidden: Units of the hidden layer.
        lr: Learning rate of SGD.
    """

    def __init__(self, num_features: int = 8, hidden: int = 16, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)[:, 0]
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss(batch, "test")

    def _loss(self, batch: list[Tensor], split: str) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self(inputs), targets)
        self.log(f"{split}/loss", loss, on_epoch=True, on_step=False, batch_size=len(targets))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])
