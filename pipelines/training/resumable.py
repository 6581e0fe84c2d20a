"""Which runs can be resumed. Imports neither torch nor Lightning."""

from pipelines.runtime.errors import UserError
from pipelines.tracking import run_log
from pipelines.tracking.existing import existing_store
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    HOST_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    REMOVED_TAG,
    SOURCE_NAME_TAG,
    STUDY_TAG,
)


def unfinished_runs(tracking_uri: str | None = None) -> list[StoredRun]:
    """Return the runs of `litlab fit` that are not FINISHED, newest first, without those of a sweep or of seeds."""
    store = existing_store(tracking_uri)
    unfinished = f"attributes.status != 'FINISHED' and tags.`{SOURCE_NAME_TAG}` LIKE 'litlab fit %'"
    runs = store.search(list(store.experiment_names()), unfinished, ["attributes.start_time DESC"])
    return [run for run in runs if is_single_fit(run)]


def is_single_fit(run: StoredRun) -> bool:
    """Return whether `litlab resume` takes a run, and no other command: not one of a sweep, of seeds, or removed."""
    is_fit = run.tags.get(SOURCE_NAME_TAG, "").startswith("litlab fit")
    return is_fit and not {PARENT_TAG, PARENT_RUN_TAG, REMOVED_TAG} & set(run.tags)


def check_resumable(run: StoredRun, *, assume_dead: bool) -> None:
    """Check that a run can be resumed.

    Args:
        run: The run.
        assume_dead: Whether the process of a RUNNING run on another machine is known to be dead.

    Raises:
        UserError: The run is finished, belongs to a command that resumes it, or is being trained.
    """
    name, tags = f"run {run.run_id}", run.tags
    if REMOVED_TAG in tags:
        raise UserError(f"{name} was removed with its files on {tags[REMOVED_TAG][:10]}: there is nothing to resume")
    if PARENT_TAG in tags:
        raise UserError(f"{name} summarises other runs. To continue: {_command(run)}")
    if parent := tags.get(PARENT_RUN_TAG):
        command = _command(run.store.find(parent))
        whole = f"study {tags[STUDY_TAG]}" if STUDY_TAG in tags else f"run {parent}"
        raise UserError(f"{name} belongs to {whole}, which trains it again. To continue: {command}")
    if run.status == "FINISHED":
        raise UserError(
            f"{name} is FINISHED: there is nothing to resume. Longer training is a new run, because its schedules may "
            f"differ: litlab fit --ckpt_path {run.run_id} --trainer.max_epochs N"
        )
    if (unsent := unsent_part(run)) and unsent.status == "FINISHED":
        raise UserError(f"{name} is FINISHED, but not all of it is in the store. To send it: litlab sync {run.run_id}")
    if not tags.get(SOURCE_NAME_TAG, "").startswith("litlab fit"):
        raise UserError(f"{name} was not trained by litlab fit")
    if run.status == "RUNNING":
        _check_dead(run, assume_dead=assume_dead)


def unsent_part(run: StoredRun) -> RunLog | None:
    """Return the data of a run that this machine has not yet sent to the tracking store."""
    log = RunLog.load(run_log.home_of(run.store.uri, run.run_id))
    if log is not None:
        log.move_to(run.store.uri)
    return log


def _command(run: StoredRun) -> str:
    return run.tags.get(COMMAND_TAG) or "run the same command again"


def _check_dead(run: StoredRun, *, assume_dead: bool) -> None:
    host = run.tags.get(HOST_TAG, "another machine")
    if is_here(run.tags):
        if is_alive(run.tags):
            pid = run.tags[PROCESS_TAG].partition(":")[0]
            raise UserError(f"run {run.run_id} is being trained by process {pid}: stop that process first")
    elif not assume_dead:
        raise UserError(
            f"run {run.run_id} is RUNNING on {host}, and this machine cannot check whether it is alive. "
            f"If it is dead: litlab resume {run.run_id} --dead"
        )
