"""A recurrent network that names the shape of a wave."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class WaveNet(LightningModule):
    """A GRU, whose last state is classified."""

    def __init__(self, hidden: int = 16, num_shapes: int = 3, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_shapes)

    def forward(self, waves: Tensor) -> Tensor:
        _, last = self.gru(waves[:, :, None])
        logits: Tensor = self.head(last[0])
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._measure(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._measure(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._measure(batch, "test")

    def _measure(self, batch: list[Tensor], part: str) -> Tensor:
        waves, shapes = batch
        logits = self(waves)
        loss = cross_entropy(logits, shapes)
        correct = (logits.argmax(1) == shapes).float().mean()
        self.log_dict({f"{part}_loss": loss, f"{part}_accuracy": correct}, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
