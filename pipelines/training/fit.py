"""Fit an experiment: configuration -> data -> module -> trainer -> one tracked run."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers.logger import DummyLogger

from datamodules.in_memory import InMemoryDataModule
from pipelines.config.cli import LitlabCLI
from pipelines.config.distributed import is_rank_zero, process_count_tags
from pipelines.config.experiments import config_arguments
from pipelines.config.object_cli import configure, trains_objects
from pipelines.config.objects import Objects
from pipelines.runtime.console import SHORT_ID
from pipelines.runtime.log import logger
from pipelines.runtime.signals import exit_on_sigterm, reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings, silence_lightning
from pipelines.runtime.terminal_log import recorded_terminal
from pipelines.tracking.labels import Labels
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import FROM_TAG
from pipelines.training.job import Training, build_parts, prepare_model, prepare_training
from pipelines.training.repeats import FindEqual, equal_run
from pipelines.training.results import FitResult, why_no_test
from pipelines.training.run_metadata import run_name, run_tags
from pipelines.training.start import Start, config_of_start, find_origin, find_start
from pipelines.training.train import train_and_test, train_on_further_device


@recorded_terminal()
def fit(
    experiment: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    labels: Labels | None = None,
    trust: bool = False,
    notify: str = "",
    system_metrics: bool = False,
    from_run: str | None = None,
    find_equal: FindEqual | None = None,
    objects: Objects | None = None,
) -> FitResult | StoredRun | None:
    """Train an experiment, test its best epoch on the test set, and record everything in one MLflow run.

    Args:
        experiment: Name of an experiment or path of a YAML file; None if the overrides name it.
        overrides: Arguments of `litlab fit` that follow, such as ["--model.dropout", "0.3"]; later ones win.
        tracking_uri: Database or server of the run; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        labels: Tags, note and name of the run.
        trust: Of a checkpoint to start from; see `load_checkpoint`.
        notify: Command to run in a shell when the run has ended; see `notified`.
        system_metrics: Whether to measure the machine; see `Run`.
        from_run: A run whose configuration the overrides change, as `find_run` takes it.
        find_equal: Finds an equal run, instead of which none is trained; see `comparison.equal_finished`.
        objects: Module, data and arguments of the Trainer, if no experiment gives them.

    Returns:
        The results, or the equal run that was found; None in a dry run (`--trainer.fast_dev_run true`), which records
        nothing, and in the processes of further devices, which have no run.

    Raises:
        UserError: The configuration or the data are invalid. There is no run.
        RunFailedError: The run failed.
        KeyboardInterrupt, SystemExit: The user stopped the training (Ctrl-C, SIGTERM). The run is KILLED.
    """
    silence_lightning()
    arguments = config_arguments(experiment, overrides, tracking_uri)
    origin = find_origin(from_run, arguments, tracking_uri)
    base = config_of_start(arguments, tracking_uri) if origin is None else origin.file("config.yaml")
    cli = configure("fit", arguments, base, objects)
    cli.trust = trust
    if cli.config.trainer.fast_dev_run:
        _dry_run(cli)
        return None
    training = prepare_training(cli)
    start = find_start(cli, training.model)
    if start.checkpoint is None and is_rank_zero():
        prepare_model(training.model)
    training.checkpoint_callback.continues = False
    training.checkpoint_callback.stops_between_steps = True
    exit_on_sigterm()
    labels = labels or Labels()
    tags = _tags(training, start, origin, arguments, labels)
    if find_equal is not None and (equal := equal_run(training, tags, find_equal)):
        return equal
    if not is_rank_zero():
        train_on_further_device(training, start.checkpoint)
        return None
    run = _create_run(training, tags, labels, arguments, system_metrics=system_metrics)
    with trains_objects(cli, run.run_id):
        return train_and_test(training, run, lambda: start.checkpoint, notify=notify)


def _create_run(
    training: Training, tags: dict[str, str], labels: Labels, arguments: Sequence[str], *, system_metrics: bool
) -> Run:
    cli = training.cli
    origin = f" from {tags[FROM_TAG][:SHORT_ID]}" if FROM_TAG in tags else ""
    name = labels.name or cli.mlflow.run_name or run_name(arguments, cli.config.seed_everything) + origin
    if cli.mlflow.note:
        logger.info(cli.mlflow.note)
    store = Store(cli.config.tracking_uri, opened=False)  # opening it would delay the first step
    run = Run(store, cli.config.name, name, tags, system_metrics=system_metrics)
    if labels.note:  # its first description became that of the experiment
        run.set_tags(labels.as_tags())
    return run


def _tags(
    training: Training, start: Start, origin: StoredRun | None, arguments: Sequence[str], labels: Labels
) -> dict[str, str]:
    """Return the tags of the new run."""
    options = [] if origin is None else ["--from", origin.run_id]
    tags = run_tags(training.cli, "fit", [*options, *arguments, *labels.as_arguments()])
    tags |= process_count_tags(training.trainer) | start.tags
    return {**tags, **({} if origin is None else {FROM_TAG: origin.run_id}), **labels.tags}


def _dry_run(cli: LitlabCLI) -> None:
    """Run Lightning's fast_dev_run: a few batches of training, validation and test."""
    data, model = build_parts(cli, test=True)
    trainer = cli.make_trainer(callbacks=cli.callbacks, logger=DummyLogger())
    prepare_model(model)
    in_memory = isinstance(data, InMemoryDataModule)
    with hidden_warnings(in_memory=in_memory), reraise_keyboard_interrupt(trainer):
        trainer.fit(model, datamodule=data)
        if not why_no_test(cli, model, data):
            trainer.test(model, datamodule=data, verbose=False)
