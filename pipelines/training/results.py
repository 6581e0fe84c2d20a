"""Test the selected epoch of a run, and record its results."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from pipelines.checkpoints.files import copy_checkpoint, discard_checkpoints, load_checkpoint
from pipelines.checkpoints.selection import Best, Monitor, validates_within_epochs
from pipelines.config.cli import LitlabCLI
from pipelines.evaluation import figures
from pipelines.evaluation.evaluate import Evaluation, evaluate, kept_predictions
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import split_of
from pipelines.runtime.status import show_status
from pipelines.tracking.run import Run, accepted_name
from pipelines.tracking.tags import (
    FIT_SECONDS,
    LEAK_CHECK_TAG,
    MODE_TAG,
    MONITOR_TAG,
    PARAMETERS,
    SELECTED,
    SELECTED_EPOCH,
    SELECTED_STEP,
    TEST_METRICS_TAG,
)
from pipelines.training.export import exportable
from pipelines.training.job import Training
from pipelines.training.logger import RunLogger

TEST = "test"


@dataclass(frozen=True)
class FitResult:
    """The results of a trained and tested run.

    Attributes:
        run_id: MLflow's id of the run.
        experiment: Name of the MLflow experiment.
        seed: The run's seed.
        metrics: All metrics at the selected epoch by name, such as "val/acc" and "test/acc".
        selected_epoch: Index of the epoch whose weights were tested: the best on the validation set, if there is one
            and `test_weights` does not say otherwise.
        last_epoch: Index of the last epoch.
        selected_step: Global step of the weights that were tested, if validations are within epochs; None if it is
            that of the end of an earlier epoch, or validations are not.
        last_step: Global step at the end of the training.
        monitor: Metric that selected the weights; None if none did.
        seconds: Training time, with that before an interruption.
        parameters: Number of parameters of the model.
        checkpoint: Checkpoint of the selected epoch; None if no checkpoint is kept.
        tracking_uri: Where the run is stored.
        experiment_id: MLflow's id of the experiment.
        refused: What the tracking store refused to accept, and why. Data not yet sent are not listed.
    """

    run_id: str
    experiment: str
    seed: int
    metrics: dict[str, float]
    selected_epoch: int
    last_epoch: int
    selected_step: int | None
    last_step: int
    monitor: str | None
    seconds: float
    parameters: int
    checkpoint: Path | None
    tracking_uri: str
    experiment_id: str
    refused: tuple[str, ...] = ()


def finalize(training: Training, run: Run, seconds: float, *, test: bool, curves: bool = True) -> FitResult:
    """Record the results of a training.

    Args:
        training: Its trainer has trained.
        run: Receives metrics, figures and the exported model.
        seconds: Training time.
        test: Whether to test the selected epoch. Without it there are no test metrics, no figures of the test set and
            no exported model.
        curves: Whether to draw the learning curves.
    """
    with _share_ended(training):
        return _finalize(training, run, seconds, test=test, curves=curves)


@contextlib.contextmanager
def _share_ended(training: Training) -> Iterator[None]:
    """End the connection with processes that share the test, if they still wait for one."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # they may be gone: the first error says why
            _end_share(training)
        raise
    _end_share(training)


def _end_share(training: Training) -> None:
    share, training.share = training.share, None
    if share is not None:
        share.end()


def _finalize(training: Training, run: Run, seconds: float, *, test: bool, curves: bool) -> FitResult:
    callback, model = training.checkpoint_callback, training.model
    last_epoch = training.trainer.current_epoch - 1
    by_metric = callback.selection.best is not None and training.cli.config.test_weights == "best"
    best = _select(training, last_epoch)
    epoch = best.epoch
    monitor = callback.selection.monitor if by_metric else None
    measured = _measured(run, best, monitor)
    selected = {f"{SELECTED}/{key}": value for key, value in measured.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    steps = {} if best.step is None else {SELECTED_STEP: best.step}
    run.log_metrics({**selected, FIT_SECONDS: seconds, PARAMETERS: parameters, SELECTED_EPOCH: epoch, **steps}, epoch)
    if run.history and curves:
        run.save_figure("learning_curves", figures.learning_curves(run.history, epoch))
    if test:
        _test_and_export(training, run, epoch)
    config = training.cli.config
    if monitor is not None and not (isinstance(model, Learner) and monitor.metric == model.monitor):
        run.set_tags({MONITOR_TAG: monitor.metric, MODE_TAG: monitor.mode})
    discard_checkpoints(callback.best.parent, config.keep)
    return FitResult(
        run_id=run.run_id,
        experiment=config.name,
        seed=config.seed_everything,
        metrics={**run.metrics_at(epoch), **measured},
        selected_epoch=epoch,
        last_epoch=last_epoch,
        selected_step=_selected_step(training.trainer, best, last_epoch),
        last_step=training.trainer.global_step,
        monitor=None if monitor is None else monitor.metric,
        seconds=seconds,
        parameters=parameters,
        checkpoint=None if config.keep == "none" else callback.best,
        tracking_uri=run.store.uri,
        experiment_id=run.experiment_id,
    )


def _selected_step(trainer: Trainer, best: Best, last_epoch: int) -> int | None:
    if best.step is None and best.epoch == last_epoch and validates_within_epochs(trainer):
        return trainer.global_step
    return best.step


def _measured(run: Run, best: Best, monitor: Monitor | None) -> dict[str, float]:
    """Return the metrics of the selected weights."""
    measured = {**(run.metrics_at(best.epoch) if best.step is None else {}), **(best.metrics or {})}
    if monitor is not None and monitor.metric not in measured:  # logged per step too, so that the run has other names
        measured[monitor.metric] = monitor.value(best.score)
    return measured


def _select(training: Training, last_epoch: int) -> Best:
    """Return which weights are tested; they are in `best.ckpt` afterwards."""
    callback, which = training.checkpoint_callback, training.cli.config.test_weights
    best = callback.selection.best
    if which == "callback":
        path = _best_of_callback(training.trainer)
        best = Best(min(load_checkpoint(path, needed=("epoch",))["epoch"], last_epoch), 0.0)
        copy_checkpoint(path, callback.best)
    elif best is None or which == "last":
        if which != "last":
            logger.warning("The last weights are kept: %s", callback.selection.describe())
        if not callback.last.is_file():
            raise UserError("nothing was trained: the checkpoint that the training starts from has reached its end")
        best = Best(last_epoch, 0.0)
        copy_checkpoint(callback.last, callback.best)
    callback.selection.best = best
    return best


def _best_of_callback(trainer: Trainer) -> Path:
    """Return the best checkpoint of the user's first ModelCheckpoint.

    Raises:
        UserError: There is no such callback, or it has saved nothing.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    path = next((callback.best_model_path for callback in callbacks if callback.best_model_path), None)
    if path is None:
        raise UserError("test_weights is callback, but no ModelCheckpoint has saved a checkpoint")
    return Path(path)


def why_no_test(cli: LitlabCLI, model: LightningModule, data: LightningDataModule | None) -> str:
    """Return why a model cannot be tested; "" if it can."""
    source = model if data is None else data
    if cli.config.trainer.limit_test_batches == 0:
        return "trainer.limit_test_batches is 0"
    if not is_overridden("test_step", model):
        return f"{type(model).__name__} has no test_step"
    if not is_overridden("test_dataloader", source):
        return f"{type(source).__name__} has no test_dataloader"
    return ""


def _test_and_export(training: Training, run: Run, epoch: int) -> None:
    """Test the selected weights, once, and save figures and the exported model."""
    data = training.data
    if reason := why_no_test(training.cli, training.model, training.data):
        logger.warning("No test: %s", reason)
        return
    show_status("testing the selected epoch and saving the model")
    own = RunLogger(run, None, tested_epoch=epoch)
    loggers = [own if isinstance(other, RunLogger) else other for other in training.trainer.loggers]
    best = training.checkpoint_callback.best
    guards = [] if training.leak_guard is None else [training.leak_guard]
    tested = _evaluate(training, best, guards, loggers, run.folder)
    log_test_metrics(run, tested.metrics, epoch)
    if training.cli.config.keep_predictions and (kept := kept_predictions(tested, data)):
        try:
            kept.save(run.folder)
        except OSError as error:  # such as a full disk; litlab test adds them later
            logger.warning("The predictions of the test are not saved: %s", error.strerror)
    run.set_tags({f"{LEAK_CHECK_TAG}.{name}": found for guard in guards for name, found in guard.results.items()})
    if isinstance(data, InMemoryDataModule):
        metadata = {"classes": list(data.classes)} if data.classes else {}
        run.log_model(exportable(data.normalize, training.model), data.test_set.inputs[:2], metadata, epoch)
        _save_test_figures(training, data, run, tested, epoch)  # while the model is sent


def _evaluate(
    training: Training, best: Path, guards: Sequence[Callback], loggers: Sequence[Logger], folder: Path
) -> Evaluation:
    """Test the weights of a checkpoint, together with the processes of further devices if there are any."""
    with _share_ended(training):
        share = training.share
        if share is not None and isinstance(training.data, InMemoryDataModule):
            logger.info("Test of %d examples over %d processes", len(training.data.test_set), share.processes)
            share.agree(best)
        return evaluate("test", training.cli, training.model, training.data, best, guards, loggers, folder, share)


def log_test_metrics(run: Run, metrics: Mapping[str, float], epoch: int, others: Iterable[str] | None = None) -> None:
    """Log what the test measured. A tag lists the names that do not say so; one that is taken gets `test/`.

    Args:
        run: The run.
        metrics: The metrics of the test.
        epoch: The epoch whose weights were tested.
        others: Names of the run's other metrics; None for a run whose history is known.
    """
    names = [key for _, values in run.history for key in values] if others is None else others
    taken = {key.removeprefix(f"{SELECTED}/") for key in names}
    named = {f"{TEST}/{key}" if split_of(key) != TEST and key in taken else key: metrics[key] for key in metrics}
    run.log_metrics(named, epoch)
    if nameless := [accepted_name(key) for key in named if split_of(key) != TEST]:
        run.set_tags({TEST_METRICS_TAG: json.dumps(nameless)})


def _save_test_figures(training: Training, data: InMemoryDataModule, run: Run, tested: Evaluation, epoch: int) -> None:
    outputs = {name: tensor.float().numpy() for name, tensor in tested.outputs.items()}
    drawn = figures.output_figures(data.test_set.inputs.numpy(), outputs, data.classes)
    for regions in training.regions:
        grids, corners = regions.grids(epoch), regions.plane.corners
        drawn["decision_regions"] = figures.decision_regions(grids, corners, data.test_set, data.classes)
    for name, figure in drawn.items():
        run.save_figure(name, figure)
