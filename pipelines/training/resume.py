"""Resume a stopped training from its last complete epoch, in the same run."""

import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule

from datamodules.in_memory import InMemoryDataModule
from pipelines.checkpoints.files import (
    BEST,
    CHECKPOINT_FOLDER,
    LAST,
    PREVIOUS,
    ResumePoint,
    copy_checkpoint,
    latest_valid,
    load_checkpoint,
)
from pipelines.checkpoints.reselect import select_again
from pipelines.checkpoints.selection import Selection
from pipelines.checkpoints.unpickle import DamagedCheckpointError
from pipelines.config.cli import LitlabCLI
from pipelines.config.defaults import config_defaults
from pipelines.config.distributed import broadcast_checkpoint, check_process_count, is_rank_zero
from pipelines.config.experiments import config_arguments
from pipelines.config.identity import changed_values
from pipelines.config.object_cli import ObjectCLI, configure, describe_changes, trains_objects
from pipelines.config.objects import KEY as OBJECTS
from pipelines.config.objects import Objects
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.log import logger
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.terminal_log import recorded_terminal
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import source_code
from pipelines.tracking.existing import existing_store
from pipelines.tracking.run import Run
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    COMMIT_TAG,
    DATA_HASH_TAG,
    DIFF_TAG,
    FOUND_TAG,
    LITLAB_COMMIT_TAG,
    LITLAB_DIFF_TAG,
    PARENT_RUN_TAG,
    RESUMED,
    SOURCE_COMMIT_TAG,
)
from pipelines.training.job import prepare_training
from pipelines.training.results import FitResult
from pipelines.training.resumable import check_resumable, unsent_part
from pipelines.training.start import find_start
from pipelines.training.train import train_and_test, train_on_further_device

MAY_CHANGE = ("monitor", "mode", "test_weights")  # keys that change nothing in the training itself


@recorded_terminal()
def resume(
    run_id: str,
    *,
    assume_dead: bool = False,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    trust: bool = False,
    system_metrics: bool = False,
    notify: str = "",
    objects: Objects | None = None,
) -> FitResult | None:
    """Resume a stopped run from its last complete epoch; on a CPU the result is bit-identical to an uninterrupted run.

    Args:
        run_id: A run of `litlab fit` that is not FINISHED, as `find_run` takes it.
        assume_dead: Whether the process of a RUNNING run on another machine is known to be dead.
        overrides: Arguments such as ["--data.data_dir", "FOLDER"]. They may not change what is trained.
        tracking_uri: Database or server of the run; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        trust: See `load_checkpoint`.
        notify: Command to run in a shell when the run has ended; see `notified`.
        system_metrics: Whether to measure the machine; see `Run`.
        objects: Module, data and arguments of the Trainer of a run that was trained with objects.

    Returns:
        The results; None in the processes of further devices, which have no run.

    Raises:
        UserError: There is no such run, it cannot be resumed, or its configuration or its data have changed.
        RunFailedError: The run failed.
        KeyboardInterrupt, SystemExit: The user stopped the training (Ctrl-C, SIGTERM). The run is KILLED.
    """
    silence_lightning()
    found, owns_run = find_run(existing_store(tracking_uri), run_id, any_status=True), is_rank_zero()
    if owns_run:  # before anything that takes long
        check_resumable(found, assume_dead=assume_dead)
        _check_trusted(found, trust=trust)
    arguments = config_arguments(None, overrides, tracking_uri)
    saved = _saved_config(found)
    cli = configure("resume", arguments, saved, objects, draws_seed=False)
    cli.trust, cli.searches = trust, FOUND_TAG not in found.tags  # what was found is part of the saved configuration
    _check_same_config(found, saved, cli, arguments)
    training = prepare_training(cli)
    start = find_start(cli, training.model)
    _check_same_data(found, training.data)
    check_process_count(found.run_id, found.tags, training.trainer)
    exit_on_sigterm()
    training.checkpoint_callback.stops_between_steps = True
    if not owns_run:
        train_on_further_device(training, broadcast_checkpoint(training.trainer))
        return None
    run = _reopen(found, assume_dead=assume_dead, system_metrics=system_metrics)

    def find_checkpoint() -> Path | None:
        point = _rewind(run, training.checkpoint_callback.selection, trust=trust)
        training.checkpoint_callback.continues = point is not None
        return point or start.checkpoint

    with trains_objects(cli, run.run_id):
        checkpoint = partial(broadcast_checkpoint, training.trainer, find_checkpoint)
        return train_and_test(training, run, checkpoint, notify=notify)


def _reopen(found: StoredRun, *, assume_dead: bool, system_metrics: bool) -> Run:
    folder = found.store.folder or Path(tempfile.gettempdir())
    with file_lock(folder / f"resume-{found.run_id}.lock", remove=True):  # a second resume sees that the run is RUNNING
        check_resumable(found.store.find(found.run_id), assume_dead=assume_dead)
        run = Run.reopen(found, system_metrics=system_metrics)
    note_commit(run, found)
    return run


def _check_trusted(run: StoredRun, *, trust: bool) -> None:
    """Refuse a run whose last checkpoint is intact but cannot be loaded, before anything changes."""
    path = run.folder / CHECKPOINT_FOLDER / LAST if run.folder else None
    if path is not None and path.is_file():
        with suppress(DamagedCheckpointError):
            load_checkpoint(path, trust=trust)


def _saved_config(run: StoredRun) -> Path:
    """Return the configuration file of a run.

    Raises:
        UserError: It has none. To restart is advised only if it has no checkpoint either.
    """
    unsent = unsent_part(run)
    if unsent is not None and (unsent.artifacts / "config.yaml").is_file():
        return unsent.artifacts / "config.yaml"
    try:
        return run.file("config.yaml")
    except UserError as error:
        if run.folder is not None and not run.folder.exists():
            raise
        if checkpoints := run.names(CHECKPOINT_FOLDER):
            place = run.folder or run.artifact_uri
            message = f"{error}, but {', '.join(checkpoints)}: to resume, put its config.yaml back into {place}"
            raise UserError(message) from error
        command = run.tags.get(COMMAND_TAG, "litlab fit")
        raise UserError(f"run {run.run_id} ended before training started. To restart: {command}") from error


def _check_same_config(run: StoredRun, saved: Path, cli: LitlabCLI, arguments: Sequence[str]) -> None:
    """Refuse a configuration that trains something else."""
    recorded, current = yaml.safe_load(saved.read_text()), cli.resolved()
    if recorded == current:  # the usual case needs no defaults
        return
    with_objects = isinstance(cli, ObjectCLI)
    if not with_objects:  # they were rebuilt from their classes, whose source has not changed
        recorded.pop(OBJECTS, None)
    changed = changed_values(recorded, current, config_defaults(cli))
    if changed := {key: values for key, values in changed.items() if key not in MAY_CHANGE}:
        if with_objects:
            what = describe_changes(changed)
            raise UserError(f"run {run.run_id} was trained with other objects: {what}. litlab.fit trains a new run")
        values = "; ".join(f"{key} is {before}, not {now}" for key, (before, now) in changed.items())
        raise UserError(
            f"run {run.run_id} has other values: {values}. To train with new values: litlab fit -c "
            f"{saved} {redact_credentials(shlex.join(arguments))}".rstrip()
        )


def _check_same_data(run: StoredRun, data: LightningDataModule | None) -> None:
    """Refuse data whose digests differ from those of the run."""
    if not isinstance(data, InMemoryDataModule):
        return
    description = data.describe()
    for split, digest in description["sha256"].items():
        recorded = run.tags.get(f"{DATA_HASH_TAG}.{split}")
        if recorded is not None and recorded != digest:
            other = f"run {run.run_id} was trained on other data: this is not its {split} set"
            raise UserError(other + _reader_changed(run, description))


def _reader_changed(run: StoredRun, description: Mapping[str, Any]) -> str:
    """Return that a run's image files may be the same, but were read by an earlier version; "" if they were not."""
    try:
        before = json.loads(run.file("data.json").read_text()).get("reader", 1)
    except (UserError, OSError, ValueError):
        return ""
    if before == description.get("reader", before):
        return ""
    return (
        ". If the image files are the same: an earlier version of litlab read them, which ignored EXIF orientation and "
        f"transparency, and clipped some images of 16 bits. To train anew: {run.tags.get(COMMAND_TAG, 'litlab fit')}"
    )


def note_commit(run: Run, found: StoredRun) -> None:
    """Report and record that a run resumes with another commit, or other uncommitted changes, than it started with."""
    code = source_code.current()
    changed = {tag: now for tag, now in code.tags.items() if found.tags.get(tag, now) != now}
    if changed or PARENT_RUN_TAG not in found.tags:  # a summary run has the changes of its runs
        code.save(run.folder)  # also what it has not yet, if it was killed before it had them
    if not changed:
        return
    before, now = (tags.get(COMMIT_TAG, "") for tags in (found.tags, code.tags))
    if COMMIT_TAG in changed:
        logger.warning("The run started with commit %s and resumes with %s", before[:12], now[:12])
    elif {DIFF_TAG, LITLAB_DIFF_TAG, LITLAB_COMMIT_TAG} & changed.keys():
        logger.warning("The run resumes with other code than it started with: litlab show %s", run.run_id)
    run.set_tags({f"{RESUMED}{tag}": value for tag, value in changed.items() if tag != SOURCE_COMMIT_TAG})


def _rewind(run: Run, selection: Selection, *, trust: bool) -> Path | None:
    """Return the checkpoint to resume from, and rewind the logged metrics to it."""
    folder = run.folder / CHECKPOINT_FOLDER
    point, messages = latest_valid(folder, trust=trust)
    for message in messages:
        logger.warning("%s", message)
    logger.info("Resuming run %s %s", run.run_id, _describe(point))
    run.rewind(point.state["metrics"] if point else 0)
    if point is not None and selection.monitor is not None and selection.is_other(point.state):
        paths = [folder / name for name in (LAST, BEST, PREVIOUS)]
        selection.best, path = select_again(paths, run.history, selection.monitor)
        if path != folder / BEST:
            copy_checkpoint(path, folder / BEST)
    return point.path if point else None


def _describe(point: ResumePoint | None) -> str:
    if point is None:
        return "from the beginning"
    if point.step is None:
        return f"after epoch {point.epoch}, from {point.path.name}"
    return f"from step {point.step} of epoch {point.epoch + 1}, from {point.path.name}"
