"""Train a small network on scikit-learn's digits."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class DigitNet(LightningModule):
    def __init__(self, hidden: int = 32, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net(pixels)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.measure(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "test")

    def measure(self, batch: list[Tensor], part: str) -> Tensor:
        pixels, digits = batch
        logits = self(pixels)
        loss = cross_entropy(logits, digits)
        accuracy = (logits.argmax(1) == digits).float().mean()
        self.log_dict({f"{part}_loss": loss, f"{part}_acc": accuracy}, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def loaders() -> list[DataLoader[Any]]:
    """Return the loaders of training, validation and test."""
    pixels, digits = load_digits(return_X_y=True)
    examples = TensorDataset(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits))
    parts = torch.utils.data.random_split(examples, [1237, 200, 360])
    return [DataLoader(part, batch_size=64, shuffle=part is parts[0]) for part in parts]


def main() -> None:
    seed_everything(0)
    train, val, test = loaders()
    model = DigitNet()
    logger = MLFlowLogger("digits", tracking_uri="sqlite:///mlflow.db")
    stop, best = EarlyStopping("val_loss"), ModelCheckpoint(monitor="val_loss")
    trainer = Trainer(max_epochs=10, logger=logger, callbacks=[stop, best])
    trainer.fit(model, train, val)
    trainer.test(model, test, ckpt_path="best")


if __name__ == "__main__":
    main()
