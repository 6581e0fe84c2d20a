"""Test the selected epoch of a run, and record its results."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datamodules.base import InMemoryDataModule
from pipelines.checkpoints.files import PREVIOUS, remove_checkpoint
from pipelines.evaluation import figures
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.runtime.metric_names import split_of
from pipelines.tracking.run import Run, accepted_name
from pipelines.tracking.tags import FIT_SECONDS, PARAMETERS, SELECTED, SELECTED_EPOCH, TEST_METRICS_TAG
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
        selected_epoch: Index of the best epoch on the validation set, which was tested.
        last_epoch: Index of the last epoch.
        monitor: Metric that selected the epoch.
        seconds: Training time, with that before an interruption.
        parameters: Number of parameters of the model.
        checkpoint: Checkpoint of the selected epoch.
        tracking_uri: Where the run is stored.
        refused: What the tracking store refused to accept, and why. Data not yet sent are not listed.
    """

    run_id: str
    experiment: str
    seed: int
    metrics: dict[str, float]
    selected_epoch: int
    last_epoch: int
    monitor: str
    seconds: float
    parameters: int
    checkpoint: Path
    tracking_uri: str
    refused: tuple[str, ...] = ()


def finalize(training: Training, run: Run, seconds: float, *, test: bool) -> FitResult:
    """Record the results of a training.

    Args:
        training: Its trainer has trained.
        run: Receives metrics, figures and the exported model.
        seconds: Training time.
        test: Whether to test the selected epoch. Without it there are no test metrics, no figures of the test set and
            no exported model.
    """
    callback, model = training.checkpoint_callback, training.model
    epoch, best = callback.best_epoch, callback.best
    if epoch is None:
        raise RuntimeError(f"no epoch was selected: the validation metric {callback.monitor} was never logged")
    selected = {f"{SELECTED}/{key}": value for key, value in run.metrics_at(epoch).items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    last_epoch = max(index for index, _ in run.history)
    run.log_metrics({**selected, FIT_SECONDS: seconds, PARAMETERS: parameters, SELECTED_EPOCH: epoch}, epoch)
    run.save_figure("learning_curves", figures.learning_curves(run.history, epoch))
    if test:
        _test_and_export(training, run, epoch)
    remove_checkpoint(best.with_name(PREVIOUS))  # only needed to resume
    config = training.cli.config
    return FitResult(
        run_id=run.run_id,
        experiment=config.name,
        seed=config.seed_everything,
        metrics=run.metrics_at(epoch),
        selected_epoch=epoch,
        last_epoch=last_epoch,
        monitor=callback.monitor,
        seconds=seconds,
        parameters=parameters,
        checkpoint=best,
        tracking_uri=run.store.uri,
    )


def _test_and_export(training: Training, run: Run, epoch: int) -> None:
    """Test the selected weights, once, and save figures and the exported model."""
    data = training.data
    own = RunLogger(run, None, tested_epoch=epoch)
    loggers = [own if isinstance(logger, RunLogger) else logger for logger in training.trainer.loggers]
    tested = evaluate("test", training.cli, training.model, data, training.checkpoint_callback.best, loggers)
    log_test_metrics(run, tested.metrics, epoch)
    if isinstance(data, InMemoryDataModule):
        metadata = {"classes": list(data.classes)} if data.classes else {}
        run.log_model(exportable(data.normalize, training.model), data.test_set.inputs[:2], metadata, epoch)
        _save_test_figures(training, data, run, tested, epoch)  # while the model is sent


def log_test_metrics(run: Run, metrics: Mapping[str, float], epoch: int) -> None:
    """Log what the test measured. A tag lists the names that do not say so; one that is taken gets `test/`."""
    taken = {key for _, values in run.history for key in values}
    named = {f"{TEST}/{key}" if split_of(key) != TEST and key in taken else key: metrics[key] for key in metrics}
    run.log_metrics(named, epoch)
    if others := [accepted_name(key) for key in named if split_of(key) != TEST]:
        run.set_tags({TEST_METRICS_TAG: json.dumps(others)})


def _save_test_figures(training: Training, data: InMemoryDataModule, run: Run, tested: Evaluation, epoch: int) -> None:
    outputs = {name: tensor.float().numpy() for name, tensor in tested.outputs.items()}
    drawn = figures.output_figures(data.test_set.inputs.numpy(), outputs, data.classes)
    for regions in training.regions:
        grids, corners = regions.grids(epoch), regions.plane.corners
        drawn["decision_regions"] = figures.decision_regions(grids, corners, data.test_set, data.classes)
    for name, figure in drawn.items():
        run.save_figure(name, figure)
