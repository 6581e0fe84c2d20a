"""The abstract Classifier: one step, metrics cloned per split, any torch optimiser.

Shapes: B examples of a batch, C channels, H rows, W columns, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.metrics import MeanLoss, SplitMetrics

Loss = Literal["cross_entropy", "quadratic"]


class Outputs(TypedDict):
    """What an evaluation step returns for a batch."""

    logits: Tensor
    labels: Tensor


class Classifier(LightningModule, ABC):
    """A network from images to K classes. Subclasses build it and say what `forward` does.

    Logs `train/loss`, `train/acc`, and the same for `val` and `test`, once per epoch. The training figures are averages
    over the epoch, while the weights change.

    Args:
        num_classes: K.
        loss: "cross_entropy" of the softmax, or "quadratic": half the squared distance of softmax to label.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: Makes a scheduler from the optimiser; None keeps the learning rate.
        lr_interval: Whether the scheduler steps after each "epoch" or each "step".
    """

    monitor = "val/acc"
    mode = "max"

    def __init__(
        self,
        num_classes: int,
        loss: Loss = "cross_entropy",
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        # A callable cannot be loaded with weights_only: whoever trains on gives the optimiser again.
        self.remove_ignored_hparams([name for name, value in self.hparams.items() if callable(value)])
        losses: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
            "cross_entropy": F.cross_entropy,
            "quadratic": quadratic_loss,
        }
        if loss not in losses:
            raise ValueError(f"model.loss is {loss!r}; it must be one of {', '.join(losses)}")
        self._loss = losses[loss]
        self._optimizer, self._lr_scheduler, self._lr_interval = optimizer, lr_scheduler, lr_interval
        metrics = MetricCollection(
            {
                "loss": MeanLoss(self._loss),
                "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            }
        )
        self.train_metrics = SplitMetrics(metrics.clone(prefix="train/"))
        self.val_metrics = SplitMetrics(metrics.clone(prefix="val/"))
        self.test_metrics = SplitMetrics(metrics.clone(prefix="test/"))

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalised images to logits of shape (B, K)."""

    def _step(self, batch: tuple[Tensor, Tensor], metrics: SplitMetrics) -> tuple[Tensor, Outputs]:
        images_BCHW, labels_B = batch
        logits_BK = self(images_BCHW.to(self.dtype))  # which precision="bf16-true" changes
        metrics.update(logits_BK, labels_B)
        return logits_BK, {"logits": logits_BK, "labels": labels_B}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits_BK, outputs = self._step(batch, self.train_metrics)
        return self._loss(logits_BK, outputs["labels"])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Outputs:
        return self._step(batch, self.val_metrics)[1]

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Outputs:
        return self._step(batch, self.test_metrics)[1]

    def predict_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Class probabilities, shape (B, K)."""
        probabilities_BK: Tensor = self(batch[0].to(self.dtype)).float().softmax(1)
        return probabilities_BK

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()  # an interrupted epoch may have left something

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def on_test_epoch_start(self) -> None:
        self.test_metrics.reset()

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.train_metrics.compute(), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self._lr_interval}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]


def quadratic_loss(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Half the squared distance of softmax to one-hot label, averaged over the batch (Nielsen, 2015, chapter 3)."""
    errors_BK = logits_BK.softmax(1) - F.one_hot(labels_B, logits_BK.shape[1])
    return errors_BK.square().sum(1).mean() / 2
