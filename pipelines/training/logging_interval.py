"""Tell the user if an epoch is too short for values of steps to be logged."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor, ThroughputMonitor

from pipelines.runtime.lightning_internals import step_metrics
from pipelines.runtime.log import logger

_LOG_STEPS = (DeviceStatsMonitor, LearningRateMonitor, ThroughputMonitor)


class LoggingInterval(Callback):
    """Name, after the first epoch, the values of steps of which most epochs log none.

    Lightning's own warning, which litlab hides, comes before the first step, also if no value of a step is logged.
    """

    def __init__(self) -> None:
        self._is_checked = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_checked or not trainer.is_global_zero:
            return
        self._is_checked = True
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        batches = trainer.num_training_batches
        if trainer.loggers and batches < interval and (names := [*step_metrics(trainer), *_monitors(trainer)]):
            message = "Values of steps are logged every %d steps (trainer.log_every_n_steps), but an epoch has %d: %s"
            logger.warning(message, interval, batches, ", ".join(names))


def _monitors(trainer: Trainer) -> list[str]:
    """Return the callbacks of Lightning that log values of steps."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, _LOG_STEPS)]
    return [type(callback).__name__ for callback in found if getattr(callback, "logging_interval", None) != "epoch"]
