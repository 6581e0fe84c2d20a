"""`litlab resume`: a training that was stopped goes on from its last checkpoint, in the same run."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import InMemoryDataModule
from pipelines.checkpoints.files import CHECKPOINT_FOLDER, latest_valid
from pipelines.config.cli import LitlabCLI, option_values, parse_config
from pipelines.config.distributed import broadcast_checkpoint, check_process_count
from pipelines.config.identity import changed_values
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking import outbox
from pipelines.tracking.origin import git_tags, is_alive, is_here
from pipelines.tracking.outbox import Outbox
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    COMMIT_TAG,
    HOST_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    RESUMED_COMMIT_TAG,
    SOURCE_NAME_TAG,
    STUDY_TAG,
)
from pipelines.training import fit
from pipelines.training.job import Training, prepare_training

HELP = """usage: litlab resume RUN_ID [--dead] [--tracking_uri URI] [--KEY VALUE ...]

Goes on with a litlab fit that was stopped, crashed or was killed: from the last
epoch that was complete, in the same run, with the same result as if nothing had
happened. A run that is finished stays as it is, and no value of its
configuration can be changed: that would be another run.

  RUN_ID              as printed by litlab fit and shown in the UI
  --dead              the run says RUNNING and was started on another machine:
                        its process there is known to be dead
  --data.data_dir DIR where the data are now; they must be the same
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""
NAMED = 10  # runs that a message lists


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab resume RUN_ID [--dead] [--key value ...]`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    silence_lightning()
    uris = option_values(argv, "--tracking_uri")
    store = Store(uris[-1] if uris else None)
    if not argv or argv[0].startswith("-"):
        raise UserError(_name_one(store))
    run_id, *rest = [token for token in argv if token != "--dead"]
    found = store.find(run_id)
    first = not rank_zero_only.rank  # type: ignore[attr-defined]
    if first:  # before all that takes long
        refuse(found, dead="--dead" in argv)
    cli = parse_config(verb, rest, base=_configuration(found))
    _refuse_changes(found, cli, rest)
    job = prepare_training(cli)
    _refuse_other_data(found, job)
    check_process_count(run_id, found.tags, job.trainer)
    exit_on_sigterm()
    if not first:
        fit.run_trainer(job, broadcast_checkpoint(job.trainer))
        return 0
    with _alone(found.store, run_id):
        refuse(found.store.find(run_id), dead="--dead" in argv)
        run = Run.reopen(found)
    note_commit(run, found)
    return fit.run_training(job, run, lambda: broadcast_checkpoint(job.trainer, lambda: _go_back(run)))


def _name_one(store: Store) -> str:
    """What to say to somebody who names no run: which ones there are."""
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    wanted = f"attributes.status != 'FINISHED' and tags.`{SOURCE_NAME_TAG}` LIKE 'litlab fit %'"
    runs = store.search(experiments, wanted, ["attributes.start_time DESC"])
    own = [run for run in runs if not {PARENT_TAG, PARENT_RUN_TAG} & set(run.tags)]
    named = [f"  {run.run_id}  {run.status:<8}  {run.tags.get(COMMAND_TAG, '')}" for run in own[:NAMED]]
    more = [f"  and {len(own) - NAMED} older ones"] if len(own) > NAMED else []
    if not own:
        return "name a run; every litlab fit has finished"
    return "\n".join(["name a run: litlab resume RUN_ID; not finished are", *named, *more])


def refuse(run: StoredRun, *, dead: bool) -> None:
    """Say why a run cannot be resumed, if it cannot.

    Args:
        run: What is asked for.
        dead: Whether the user knows that its process on another machine is dead.

    Raises:
        UserError: It has ended well, is one of many that are looked after by others, or is under way.
    """
    name, tags = f"run {run.run_id}", run.tags
    command = tags.get(COMMAND_TAG, "")
    again = f"the same command goes on with what is missing: {command}" if command else "call the same command again"
    if PARENT_TAG in tags:
        raise UserError(f"{name} stands for others; {again}")
    if parent := tags.get(PARENT_RUN_TAG):
        command = run.store.find(parent).tags.get(COMMAND_TAG, "")
        what = f"study {tags[STUDY_TAG]}" if STUDY_TAG in tags else f"run {parent}"
        raise UserError(
            f"{name} is one of {what}, which trains it again by itself: {command or 'call the same command again'}"
        )
    if run.status == "FINISHED":
        raise UserError(
            f"{name} is FINISHED: there is nothing to resume. A longer training is another run, since its schedules "
            "may be others: litlab fit -c CONFIG --trainer.max_epochs N, with the config.yaml of this one"
        )
    if (kept := _kept(run)) and kept.status == "FINISHED":
        raise UserError(f"{name} is FINISHED, and its store does not know it; to tell it: litlab sync {run.run_id}")
    if not tags.get(SOURCE_NAME_TAG, "").startswith("litlab fit"):
        raise UserError(f"{name} is none of litlab fit")
    if run.status == "RUNNING":
        _refuse_if_alive(run, dead=dead)


def _refuse_if_alive(run: StoredRun, *, dead: bool) -> None:
    host = run.tags.get(HOST_TAG, "another machine")
    if is_here(run.tags):
        if is_alive(run.tags):
            number = run.tags[PROCESS_TAG].partition(":")[0]
            raise UserError(f"run {run.run_id} is being trained by process {number}: end that first")
    elif not dead:
        raise UserError(
            f"run {run.run_id} is RUNNING, on {host}, where it cannot be seen whether it is alive; if it is dead: "
            f"litlab resume {run.run_id} --dead"
        )


def _kept(run: StoredRun) -> Outbox | None:
    """What this machine has of a run, and its store does not."""
    return Outbox.load(outbox.home_of(run.store.uri, run.run_id))


def _configuration(run: StoredRun) -> Path:
    kept = _kept(run)
    if kept is not None and (kept.artifacts / "config.yaml").is_file():
        return kept.artifacts / "config.yaml"
    try:
        return run.file("config.yaml")
    except UserError as error:
        command = run.tags.get(COMMAND_TAG, "litlab fit")
        raise UserError(f"run {run.run_id} ended before it began; start anew: {command}") from error


def _refuse_changes(run: StoredRun, cli: LitlabCLI, given: Sequence[str]) -> None:
    recorded: dict[str, Any] = yaml.safe_load(_configuration(run).read_text())
    if changed := changed_values(recorded, cli.resolved()):
        said = "; ".join(f"{key} is {before}, not {now}" for key, (before, now) in changed.items())
        raise UserError(
            f"run {run.run_id} has other values: {said}. Another value is another run: litlab fit -c "
            f"{_configuration(run)} {' '.join(given)}".rstrip()
        )


def _refuse_other_data(run: StoredRun, job: Training) -> None:
    if not isinstance(job.data, InMemoryDataModule):
        return
    for split, digest in job.data.describe()["sha256"].items():
        recorded = run.tags.get(f"data.sha256.{split}")
        if recorded is not None and recorded != digest:
            raise UserError(f"run {run.run_id} was trained on other data: this is not its {split} set")


def note_commit(run: Run, found: StoredRun) -> None:
    """Say and record that a run goes on with other code than it began with."""
    before, now = found.tags.get(COMMIT_TAG), git_tags().get(COMMIT_TAG)
    if before and now and before != now:
        print(f"litlab: the run began with commit {before[:12]} and goes on with {now[:12]}", file=sys.stderr)
        run.set_tags({RESUMED_COMMIT_TAG: now})


@contextlib.contextmanager
def _alone(store: Store, run_id: str) -> Iterator[None]:
    """Of two that resume a run at once on this machine, the second is to see that the first one has it."""
    from filelock import FileLock

    path = (store.folder or Path(tempfile.gettempdir())) / f"resume-{run_id}.lock"
    with FileLock(path):
        yield
        path.unlink(missing_ok=True)


def _go_back(run: Run) -> Path | None:
    """Find the checkpoint to go on from, and bring the metrics back to where they were; say so."""
    point, said = latest_valid(run.folder / CHECKPOINT_FOLDER)
    for line in said:
        print(f"litlab: {line}", file=sys.stderr)
    since = f"after epoch {point.epoch}, from {point.path.name}" if point else "from the beginning"
    print(f"going on with run {run.run_id} {since}")
    run.rewind(point.state["metrics"] if point else 0)
    return point.path if point else None
