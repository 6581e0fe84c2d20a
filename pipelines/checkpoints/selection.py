"""Which metric selects the best weights, and which validation was the best so far."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import ReduceLROnPlateau

from modules.base import Learner
from pipelines.checkpoints.ties import tie_score
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import (
    Mode,
    distinct_metrics,
    find_metric,
    list_metrics,
    mode_of,
    split_of,
    tells_mode,
)

USUAL_NAMES = ("val/loss", "val_loss", "val/acc", "val_acc")  # taken in this order, if nothing names a metric


@dataclass(frozen=True)
class Monitor:
    """The metric that selects.

    Attributes:
        metric: Its name, as logged.
        mode: Whether lower ("min") or higher ("max") values are better.
        source: Where the name comes from, for messages.
    """

    metric: str
    mode: Mode
    source: str

    def score(self, value: float) -> float:
        """Return a value of the metric such that higher is better; NaN is the worst."""
        return -math.inf if math.isnan(value) else value if self.mode == "max" else -value

    def value(self, score: float) -> float:
        """Return the value of the metric that has a score."""
        return score if self.mode == "max" else -score


@dataclass
class Best:
    """The best validation so far.

    Attributes:
        epoch: Index of its epoch.
        score: Value of the metric; its negative where lower values are better.
        step: Global step, for a validation within an epoch; else None.
        metrics: What that validation logged, if validations have steps as x axis; else None: the run has them by epoch.
        tie: Score of the metric that breaks ties; None if it was not logged.
    """

    epoch: int
    score: float
    step: int | None = None
    metrics: dict[str, float] | None = None
    tie: float | None = None


class Selection:
    """The monitored metric and the best validation.

    The metric is, in this order: the given one; that of litlab's own base class; the `monitor` of a ModelCheckpoint, an
    EarlyStopping or a ReduceLROnPlateau; one of `USUAL_NAMES`; the only metric that a validation logs. Its mode is the
    given one, that of the callback or scheduler, that of the torchmetrics object, or `mode_of` its name.

    Args:
        metric: The given name, or None.
        mode: The given mode, or None.
        model: The module that is trained.

    Attributes:
        monitor: The metric; None as long as it is unknown.
        best: The best validation; None before the first one.
        logged: Whether higher values are better, by the name of each metric that validations logged; None if unknown.
        validated: Whether there was a validation.
        is_required: Whether it is an error if the validation does not log the given metric.
        breaks_ties: Whether the loss decides between validations of equal score; not in a run of an earlier version.
    """

    def __init__(
        self, metric: str | None = None, mode: Mode | None = None, model: LightningModule | None = None
    ) -> None:
        self.monitor: Monitor | None = None
        self.best: Best | None = None
        self.logged: dict[str, bool | None] = {}
        self.validated = False
        self.is_required = self.breaks_ties = True
        self._mode, self._given = mode, metric is not None
        self._tried: Mapping[str, bool | None] = {}  # what the sanity check logged
        self._to_announce = False
        if metric is not None:
            self._set(metric, None, "given")
        elif isinstance(model, Learner):
            self._set(model.monitor, model.mode, type(model).__name__)

    def find_in_trainer(self, trainer: Trainer) -> None:
        """Take the metric of a callback or a scheduler, if it is unknown."""
        if self.monitor is not None:
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        of_callbacks = [
            call for kind in (ModelCheckpoint, EarlyStopping) for call in callbacks if isinstance(call, kind)
        ]
        found: list[Any] = [(call.monitor, call.mode, type(call).__name__) for call in of_callbacks]
        for config in trainer.lr_scheduler_configs:
            if isinstance(scheduler := config.scheduler, ReduceLROnPlateau):
                found.append((config.monitor, scheduler.mode, type(scheduler).__name__))
        for metric, mode, source in found:
            if metric is not None:
                self._set(find_metric(metric, self._tried) or metric, mode, source, announce=True)
                self._announce(self._tried)
                return self._warn_if_not_tried()

    def after_validation(self, logged: Mapping[str, bool | None], *, sanity_check: bool = False) -> None:
        """Find the metric among those that a validation logged.

        Raises:
            UserError: The given metric is not among them.
        """
        if sanity_check:
            self._tried = logged
        else:
            self.validated = True
            self.logged |= logged
        if self.monitor is None:
            usual = [name for name in USUAL_NAMES if find_metric(name, logged)]
            names = usual or distinct_metrics(logged)
            if not sanity_check and (usual or len(names) == 1):
                name = find_metric(names[0], logged) or names[0]
                self._set(name, None, "logged in validation", logged, announce=True)
        elif (found := find_metric(self.monitor.metric, logged)) is not None and found != self.monitor.metric:
            self._set(found, self.monitor.mode, self.monitor.source, logged, announce=True)
        elif found is not None and self.monitor.source == "given" and self._mode is None:
            self._set(found, None, "given", logged)
        elif found is None and self._must_be_logged and (logged or not sanity_check):
            raise UserError(_not_logged(self.monitor.metric, "validation", logged))
        self._announce(logged)

    def after_epoch(self, logged: Iterable[str]) -> None:
        """Check that a metric of the training, if it was given, was logged in the first epoch.

        Raises:
            UserError: It was not.
        """
        self._announce(logged)
        if self._given and self._by_training and self.monitor is not None and self.monitor.metric not in set(logged):
            raise UserError(_not_logged(self.monitor.metric, "training", logged))

    @property
    def _must_be_logged(self) -> bool:
        return self._given and self.is_required and not self._by_training

    @property
    def _by_training(self) -> bool:
        return self.monitor is not None and split_of(self.monitor.metric) == "train"

    def is_fresh(self, logged: Iterable[str], *, validated: bool) -> bool:
        """Return whether the metric has a new value: after each validation, or each epoch if training logs it."""
        return (
            self.monitor is not None
            and (validated or self.monitor.metric not in self.logged)
            and self.monitor.metric in logged
        )

    def is_better(self, score: float, tie: float | None = None) -> bool:
        """Return whether a score is better than the best so far; of equal ones that with the lower loss, or the first.

        Args:
            score: See `Monitor.score`.
            tie: See `tie_score`.
        """
        if self.best is None or score != self.best.score:
            return self.best is None or score > self.best.score
        return tie is not None and self.best.tie is not None and tie > self.best.tie

    def tie_score(self, logged: Mapping[str, Any]) -> float | None:
        """Return the score that decides between validations of equal score: the validation loss, lower is better.

        None if it was not logged, is what selects, or this run began with a version that took the first of equal ones.
        """
        return tie_score(logged, None if self.monitor is None else self.monitor.metric) if self.breaks_ties else None

    def describe(self) -> str:
        """Return what a run that has no metric to select by should say."""
        if not self.validated:
            return "there was no validation"
        if not self.logged:
            return "the validation logged no metrics"
        return f"no validation metric was chosen from {', '.join(sorted(self.logged))}: --monitor NAME chooses one"

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain values."""
        best = self.best
        return {
            "best_epoch": None if best is None else best.epoch,
            "best_score": -math.inf if best is None else best.score,
            "best_step": None if best is None else best.step,
            "best_metrics": None if best is None else best.metrics,
            "best_tie": None if best is None else best.tie,
            "breaks_ties": self.breaks_ties,
            "monitor": None if self.monitor is None else asdict(self.monitor),
        }

    def is_other(self, state: Mapping[str, Any]) -> bool:
        """Return whether a checkpoint's `state` selected by another metric than the given one."""
        before = state.get("monitor")
        return (
            self._given
            and self.monitor is not None
            and before is not None
            and (
                find_metric(self.monitor.metric, [before["metric"]]) is None
                or (self._mode or before["mode"]) != before["mode"]
            )
        )

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, also that of earlier versions; a best by another metric is no best."""
        self.breaks_ties = bool(state.get("breaks_ties", False))
        if self.is_other(state):
            return
        if state["best_epoch"] is not None:
            self.best = Best(
                state["best_epoch"],
                state["best_score"],
                state.get("best_step"),
                state.get("best_metrics"),
                state.get("best_tie"),
            )
        if self.monitor is None and state.get("monitor"):
            self.monitor = Monitor(**state["monitor"])

    def _set(
        self,
        metric: str,
        mode: Mode | None,
        source: str,
        logged: Mapping[str, bool | None] = {},  # it is only read
        *,
        announce: bool = False,
    ) -> None:
        higher = logged.get(metric)
        by_object: Mode | None = None if higher is None else "max" if higher else "min"
        known = self._mode or mode or by_object
        self.monitor, self._to_announce = Monitor(metric, known or mode_of(metric), source), announce
        if known is None and not tells_mode(metric) and _reports():
            message = "The name of %s does not tell which values are better: higher ones are assumed, else --mode min"
            logger.warning(message, metric)

    def _announce(self, logged: Iterable[str]) -> None:
        """Tell which metric selects, once it has been logged."""
        if self._to_announce and self.monitor is not None and find_metric(self.monitor.metric, logged) is not None:
            self._to_announce = False
            better = "higher" if self.monitor.mode == "max" else "lower"
            if _reports():
                message = "The best weights are selected by %s, %s is better (%s)"
                logger.info(message, self.monitor.metric, better, self.monitor.source)

    def _warn_if_not_tried(self) -> None:
        """Warn of a metric of the validation that the sanity check did not log, before an epoch is trained in vain."""
        assert self.monitor is not None
        metric = self.monitor.metric
        if self._tried and find_metric(metric, self._tried) is None and split_of(metric) == "val" and _reports():
            message = "%s monitors %s, but the sanity check logged %s"
            logger.warning(message, self.monitor.source, metric, list_metrics(self._tried, metric))


def _reports() -> bool:
    """Return whether this process tells the user what it finds."""
    return not getattr(rank_zero_only, "rank", 0)


def validates_within_epochs(trainer: Trainer) -> bool:
    """Return whether a training is validated within its epochs, so that validations have no epoch of their own."""
    if trainer.check_val_every_n_epoch is None or not hasattr(trainer, "val_check_interval"):
        return True  # every so many steps, or minutes
    batches = trainer.val_check_batch
    return batches is not None and batches < trainer.num_training_batches


def _not_logged(metric: str, by: str, logged: Iterable[str]) -> str:
    return f"--monitor {metric}: the {by} logs {list_metrics(logged, metric)}"
