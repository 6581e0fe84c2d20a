"""Lightning logger that writes metrics to a `Run`, with the epoch as x axis."""

from argparse import Namespace
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from pipelines.tracking.run import Run


class RunLogger(Logger):
    """Log metrics to a `Run`.

    Does not end the run: Lightning would finalize it before the test, and as failed after an interruption.
    """

    def __init__(self, run: Run, trainer: Trainer) -> None:
        super().__init__()
        self._run, self._trainer = run, trainer

    @property
    def name(self) -> str:
        return self._run.experiment_id

    @property
    def version(self) -> str:
        return self._run.run_id

    @property
    def log_dir(self) -> str:
        return str(self._run.folder)

    @property
    def save_dir(self) -> str:
        return str(self._run.folder)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = int(values.pop("epoch", self._trainer.current_epoch))  # some callbacks give the step only
        if values:
            self._run.log_metrics(values, epoch)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: params come from the resolved configuration, when the run is created."""
