"""Callback that reports each epoch's metric to the controller and stops the training if the controller prunes it."""

import math
from multiprocessing import connection

from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.checkpoints.callback import BestAndLastCheckpoint
from pipelines.checkpoints.selection import Selection
from pipelines.runtime.errors import StoppedError
from pipelines.runtime.metric_names import find_metric
from sweeps.workers.process import RefusedError, send


class PruningCallback(Callback):
    """Report a metric to the controller after each epoch, and stop the training on all devices if it is pruned.

    Args:
        metric: See `Job.metric`.
        pipe: Connection to the controller; None on further devices.

    Attributes:
        pruned_at: Index of the epoch after which the controller stopped the training; None if it did not.
    """

    def __init__(self, metric: str | None, pipe: connection.Connection | None) -> None:
        self._metric, self.pipe = metric, pipe
        self.pruned_at: int | None = None
        self._validations, self._within_epochs = 0, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = self.value(trainer, pl_module)
        stop = False
        self._validations += 1
        self._within_epochs |= not trainer.is_last_batch
        if trainer.is_global_zero and self.pipe is not None:
            self.report(self._validations if self._within_epochs else trainer.current_epoch + 1, value)
            stop = self.should_stop()
        if trainer.strategy.broadcast(stop):
            self.pruned_at = trainer.current_epoch
            trainer.should_stop = True

    def value(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """Return the metric of the epoch that has just been validated.

        Raises:
            RefusedError: The experiment does not log the metric.
            FloatingPointError: The metric is not finite.
        """
        logged, selection = trainer.callback_metrics, _selection(trainer)
        if self._metric is None:
            monitor = selection.monitor
            return float(logged[monitor.metric]) if monitor is not None and monitor.metric in logged else None
        metric = find_metric(self._metric, logged)
        if metric is None:
            available = ", ".join(sorted(selection.logged))
            logged_names = available or "no validation metric"
            raise RefusedError(f"metric {self._metric}: the experiment logs {logged_names}; set metric in the space")
        value = float(logged[metric])
        if not math.isfinite(value):
            raise FloatingPointError(f"{self._metric} is {value} in epoch {trainer.current_epoch}")
        return value

    def report(self, epoch: int, value: float | None) -> None:
        """Send the metric of an epoch to the controller, which then answers."""
        assert self.pipe is not None
        send(self.pipe, ("epoch", epoch, value))

    def should_stop(self) -> bool:
        """Wait for the controller's answer, and return whether the training stops here.

        Raises:
            StoppedError: The controller died.
        """
        assert self.pipe is not None
        try:
            return bool(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise StoppedError("its controller died") from error


def _selection(trainer: Trainer) -> Selection:
    """Return what selects the best validation of a training."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback.selection for callback in callbacks if isinstance(callback, BestAndLastCheckpoint))
