"""Abstract LightningModules: one step shared by all splits, metrics cloned per split, any torch optimiser.

Shapes: B batch size, K classes or output values.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.lightning_internals import HOOK_NAME
from modules.metrics import MeanLoss, SplitMetrics
from modules.schedules import WholeTraining

Loss = Literal["cross_entropy", "quadratic"]
Reduction = Literal["mean", "sum"]
Batch = tuple[Tensor, ...]


class Learner(LightningModule, ABC):
    """Base class of all modules: a step shared by all splits, metrics logged once per epoch, and the optimiser.

    Logs metrics as `train/...`, `val/...` and `test/...`. Training metrics are averages over the epoch, while the
    weights change. If the data evaluate the training set again, `train_end/...` are its metrics after the epoch.

    Args:
        optimizer: Callable that builds the optimiser from the parameters.
        lr_scheduler: Callable that builds a scheduler from the optimiser; None keeps the learning rate constant.
        lr_interval: Whether the scheduler steps after each "epoch" or each "step"; always "step" for the schedules of
            `modules.schedules`.
        reduction: Whether the gradient of a step is that of the "mean" or of the "sum" of the losses of all examples in
            the batch. With plain SGD, "sum" acts like a learning rate that is larger by the batch size. The logged
            losses are means.
    """

    monitor: str
    """Metric that selects the best epoch."""
    mode: Literal["min", "max"]
    min_examples: int = 1
    """Examples that each set needs, so that its metrics are defined."""

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"model.reduction is {reduction!r}; it must be mean or sum")
        self.save_hyperparameters(logger=False)
        # Callables cannot be loaded with weights_only=True; to continue training, pass the optimiser again.
        self.remove_ignored_hparams([name for name, value in self.hparams.items() if callable(value)])
        self._optimizer, self._lr_scheduler, self._lr_interval = optimizer, lr_scheduler, lr_interval
        self._reduction = reduction
        collection = MetricCollection(self.metrics())
        self.train_metrics = SplitMetrics(collection.clone(prefix="train/"))
        self.train_end_metrics = SplitMetrics(collection.clone(prefix="train_end/"))
        self.val_metrics = SplitMetrics(collection.clone(prefix="val/"))
        self.test_metrics = SplitMetrics(collection.clone(prefix="test/"))

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets it 40 times per step. nn.Module's slow __setattr__ would add 4 to 6 % to an epoch at batch 64.
        if name == HOOK_NAME:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @abstractmethod
    def metrics(self) -> dict[str, Metric | MetricCollection]:
        """Return the metrics of a split by name. "loss" must be one of them. `hparams` are set, layers are not."""

    def logged_names(self) -> list[str]:
        """Return the names of the metrics of training and validation; `train_end/...` are only logged on request."""
        splits = (self.train_metrics, self.val_metrics, self.train_end_metrics)
        return [str(name) for split in splits for part in (split.metrics, split.others) for name in part.keys()]  # noqa: SIM118

    @abstractmethod
    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        """Update the metrics; return the batch's mean training loss, and the outputs that evaluation steps return."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self._step(batch, self.train_metrics)[0]
        if self._reduction == "sum":
            return self._sum_over_processes(loss, batch)
        return self._scale_for_uneven_batch(loss, batch)[0] if self._is_uneven() else loss

    def _is_uneven(self) -> bool:
        """Return whether processes may have different numbers of examples: only in the last batch of an epoch."""
        trainer = trainer_of(self)
        return trainer is not None and trainer.world_size > 1 and trainer.is_last_batch

    def _scale_for_uneven_batch(self, loss: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return this process's mean loss times its weight, and the weight: its batch size over the mean batch size.

        Strategies average the gradients of all processes. With this weight, the average is the gradient of the mean
        loss over the global batch, however it is split. A process without examples still takes part in the step: its
        mean loss is NaN, which is replaced by 0, with zero gradients.
        """
        count = torch.full((), float(len(batch[0])), device=self.device)
        total: Tensor = self.trainer.strategy.reduce(count.clone(), reduce_op="sum")
        weight = count * self.trainer.world_size / total
        return weight * (loss if len(batch[0]) else loss.nan_to_num()), weight

    def _sum_over_processes(self, mean_loss: Tensor, batch: Batch) -> Tensor:
        """Return this process's summed loss times the number of processes, since strategies average the gradients."""
        trainer = trainer_of(self)
        summed = len(batch[0]) * (mean_loss if len(batch[0]) else mean_loss.nan_to_num())
        return summed * (1 if trainer is None else trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self._step(batch, self.train_end_metrics if dataloader_idx else self.val_metrics)[1]

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, self.test_metrics)[1]

    def load_start(self) -> None:
        """Load what a new training starts from, such as published weights. Nothing by default.

        Raises:
            ValueError, OSError: It cannot be read or downloaded.
        """

    def on_fit_start(self) -> None:
        if self.global_rank:  # initial weights are the same on all processes; dropout and augmentation must differ
            seed_sequence = np.random.SeedSequence((torch.initial_seed(), self.global_rank))
            torch.manual_seed(int(seed_sequence.generate_state(1)[0]))  # seed + rank may be the seed of another run

    def setup(self, stage: str) -> None:
        for metrics in (self.train_metrics, self.train_end_metrics, self.val_metrics, self.test_metrics):
            metrics.reset()  # an interrupted epoch may have left state behind

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.train_metrics.compute(), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), sync_dist=True)
        if len(self.trainer.num_val_batches) > 1:
            self.log_dict(self.train_end_metrics.compute(), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute(), sync_dist=True)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip gradients; also for fused optimisers in bf16, which Lightning refuses although no scaler is used."""
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            Precision.clip_gradients(
                plugin, optimizer, gradient_clip_val, GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            )
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _build_optimizer(self) -> Optimizer:
        return self._optimizer(self.parameters())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._build_optimizer()
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self._lr_interval}
        if isinstance(scheduler, WholeTraining):
            config["interval"] = "step"
            if trainer_of(self) is not None:
                scheduler.set_total_steps(self.trainer.estimated_stepping_batches)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]


def quadratic_loss(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return half the squared error of softmax to one-hot label, averaged over the batch (Nielsen, 2015, chapter 3)."""
    errors_BK = logits_BK.softmax(1) - F.one_hot(labels_B, logits_BK.shape[1])
    return errors_BK.square().sum(1).mean() / 2


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "quadratic": quadratic_loss,
}


class Classifier(Learner):
    """Base class of classifiers of K classes. Subclasses build the network and implement `forward`.

    Logs loss and accuracy of each split. The logged losses are without label smoothing.

    Args:
        num_classes: Number of classes, K.
        loss: "cross_entropy" (softmax cross-entropy), or "quadratic": half the squared error of softmax to one-hot.
        label_smoothing: Fraction of each training label that is spread over all classes; cross-entropy only.
        **training: Optimiser and scheduler, see `Learner`.
    """

    monitor = "val/acc"
    mode = "max"

    def __init__(
        self, num_classes: int, loss: Loss = "cross_entropy", label_smoothing: float = 0.0, **training: Any
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__} needs data with classes, at least 2; there are {num_classes}")
        if loss not in LOSSES:
            raise ValueError(f"model.loss is {loss!r}; it must be one of {', '.join(LOSSES)}")
        if not 0 <= label_smoothing < 1 or (label_smoothing and loss != "cross_entropy"):
            raise ValueError(
                f"model.label_smoothing is {label_smoothing}; it must be in [0, 1), and 0 if loss is quadratic"
            )
        super().__init__(**training)
        self._loss, self._label_smoothing = LOSSES[loss], label_smoothing

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        accuracy = MulticlassAccuracy(self.hparams["num_classes"], average="micro", validate_args=False)
        return {"loss": MeanLoss(LOSSES[self.hparams["loss"]]), "acc": accuracy}

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Map normalised inputs to logits of shape (B, K)."""

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, labels_B = batch
        logits_BK = self(inputs.to(self.dtype))  # precision="bf16-true" changes self.dtype
        metrics.update(logits_BK, labels_B)
        return self.training_loss(logits_BK, labels_B), {"logits": logits_BK, "labels": labels_B}

    def training_loss(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Return the training loss, averaged over the batch: with label smoothing, unlike the logged loss."""
        if self._label_smoothing:
            return F.cross_entropy(logits_BK, labels_B, label_smoothing=self._label_smoothing)
        return self._loss(logits_BK, labels_B)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return class probabilities of shape (B, K)."""
        probabilities_BK: Tensor = self(batch[0].to(self.dtype)).float().softmax(1)
        return probabilities_BK


class Regressor(Learner):
    """Base class of regression models. Subclasses build the network and implement `forward`, `_step` and `metrics`."""

    monitor = "val/loss"
    mode = "min"


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the trainer that a module is attached to, None without one, as in Lightning Fabric."""
    try:
        return module.trainer if module.fabric is None else None
    except RuntimeError:  # it has none
        return None
