"""Log the learning rates of each epoch, where schedulers change them."""

from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor

from pipelines.training.logger import RunLogger


class LearningRates(Callback):
    """Log the learning rates with which each epoch begins, under the names of LearningRateMonitor.

    Nothing is logged without a scheduler, or if there is a LearningRateMonitor.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
        if not loggers or any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
            return
        if rates := learning_rates(trainer):
            loggers[0].log_learning_rates(rates, trainer.current_epoch)


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """Return the learning rate of each group of parameters, such as `lr-Adam/pg1`; nothing without a scheduler."""
    if not trainer.lr_scheduler_configs:
        return {}
    monitor = LearningRateMonitor()
    try:
        monitor.on_train_start(trainer)  # finds the names: first of optimizers with schedulers, then of others
    except MisconfigurationException:  # groups with equal names
        return {}
    scheduled: list[Any] = [config.scheduler.optimizer for config in trainer.lr_scheduler_configs]
    others = [optimizer for optimizer in map(_unwrapped, trainer.optimizers) if optimizer not in scheduled]
    rates = [float(group["lr"]) for optimizer in (*scheduled, *others) for group in optimizer.param_groups]
    return dict(zip(monitor.lrs, rates, strict=True)) if len(monitor.lrs) == len(rates) else {}


def _unwrapped(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's is around another one
