"""Lightning logger of a run: what modules and callbacks log goes to a `Run`, as with Lightning's MLFlowLogger."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from pipelines.checkpoints.selection import validates_within_epochs
from pipelines.runtime.lightning_internals import is_called_by_trainer, logs_step
from pipelines.runtime.log import logger
from pipelines.tracking.experiment import ExperimentClient
from pipelines.tracking.run import Run
from pipelines.training.hyperparameters import new_params


class RunLogger(MLFlowLogger):
    """Log to a `Run`. It is an MLFlowLogger to those who ask, but does not import MLflow itself.

    Values of a step have the step as x axis, values of an epoch the epoch. Does not end the run: Lightning would
    finalize it before the test, and as failed after an interruption.

    Args:
        run: The run; None in the processes of further devices, which log nothing.
        trainer: The trainer that calls the logger.
        tested_epoch: The epoch that is tested, if the trainer tests. What the test returns is logged by `finalize`.
    """

    def __init__(self, run: Run | None, trainer: Trainer | None, *, tested_epoch: int | None = None) -> None:
        Logger.__init__(self)  # not MLFlowLogger's, which imports MLflow
        self._run, self._trainer, self._tested_epoch = run, trainer, tested_epoch
        self._experiment = None if run is None else ExperimentClient(run.store.uri)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; a request that fails is a warning. On further devices, Lightning's dummy."""
        return self._experiment

    @property
    def run_id(self) -> str | None:
        return None if self._run is None else self._run.run_id

    @property
    def experiment_id(self) -> str | None:
        return None if self._run is None else self._run.experiment_id

    @property
    def name(self) -> str | None:
        return self.experiment_id

    @property
    def version(self) -> str | None:
        return self.run_id

    @property
    def log_dir(self) -> str | None:
        return self.save_dir

    @property
    def save_dir(self) -> str | None:
        return None if self._run is None else str(self._run.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics. Those of the trainer have their epoch among them; others have the x axis that is given.

        Without a step, the x axis is the trainer's step within an epoch, and the epoch between two.
        """
        values = {name: number for name, value in metrics.items() if (number := _number(name, value)) is not None}
        by_trainer = "epoch" in values
        epoch = int(values.pop("epoch", self._epoch))
        if self._tested_epoch is not None:
            epoch, values = self._tested_epoch, {} if by_trainer else values
        elif by_trainer and not self._has_step_axis():
            step = None
        elif step is None and self._trainer is not None and logs_step(self._trainer):
            step = self._trainer.global_step
        if values and self._run is not None:
            self._run.log_metrics(values, epoch, step)

    def log_learning_rates(self, rates: Mapping[str, float], epoch: int) -> None:
        """Log what an epoch begins with. Values of a step are not among the metrics of the selected epoch."""
        if self._run is not None:
            self._run.log_metrics(rates, epoch, step=epoch)

    @property
    def _epoch(self) -> int:
        return self._trainer.current_epoch if self._trainer is not None else 0

    def _has_step_axis(self) -> bool:
        """Return whether the trainer logs values of a step, or of a validation within an epoch."""
        assert self._trainer is not None
        return validates_within_epochs(self._trainer) if self._trainer.validating else logs_step(self._trainer)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Log params, except those that are equal to a key of the configuration, whose params the run has already.

        Nothing is logged for `save_hyperparameters`: Lightning's own call, at the start.
        """
        if self._run is None or is_called_by_trainer():
            return
        if new := new_params(vars(params) if isinstance(params, Namespace) else params, self._run.params):
            self._run.log_params(new)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Do nothing: the run is ended after the test."""

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Do nothing: the checkpoints of a run are among its files."""


def _number(name: str, value: Any) -> float | None:
    """Return the value of a metric as a plain number; None, with a warning, if it is none."""
    try:
        return value if type(value) in (float, int) else float(value)
    except (TypeError, ValueError):
        logger.warning(f"logger.log_metrics: {name} is {type(value).__name__}, not a number, and is not logged")
        return None
