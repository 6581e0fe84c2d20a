"""Ask a run to stop, from any shell or machine that reaches the tracking store. Imports neither torch nor Lightning."""

import shlex
from dataclasses import dataclass
from datetime import datetime

from pipelines.runtime.errors import UserError
from pipelines.tracking.client import unreachable
from pipelines.tracking.existing import existing_store
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.run_names import look_up, unknown_name
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    PARENT_RUN_TAG,
    PROCESS_TAG,
    STOP_TAG,
    STUDY_TAG,
    SWEEP_SUFFIX,
)
from pipelines.tracking.uri import tracking_uri_arguments
from pipelines.training.resumable import is_single_fit

MAX_LISTED = 10


@dataclass(frozen=True)
class StopRequest:
    """A run that was asked to stop.

    Attributes:
        run: The run.
        is_repeated: Whether it had been asked before.
        continuing: The command that continues it; "" if it is unknown.
    """

    run: StoredRun
    is_repeated: bool
    continuing: str


def request_stop(name: str, *, tracking_uri: str | None = None) -> StopRequest:
    """Ask a run to stop: it ends as after Ctrl-C, as soon as it sees its tag, and can be continued.

    Args:
        name: A run as `find_run` takes it, or an experiment or a study of which one run is RUNNING.
        tracking_uri: By default the project's mlflow.db.

    Raises:
        UserError: There is no such run, it is not running, or it is part of another run.
    """
    from mlflow.exceptions import MlflowException

    store = existing_store(tracking_uri)
    try:
        run = look_up(store, name, any_status=True) or _running(store, name)
        _check_running(run)
        is_repeated = STOP_TAG in run.tags
        store.client.set_tag(run.run_id, STOP_TAG, datetime.now().astimezone().isoformat(timespec="seconds"))
        if store.find(run.run_id).status != "RUNNING":  # it has ended meanwhile, perhaps before it could see the tag
            store.client.delete_tag(run.run_id, STOP_TAG)
            raise UserError(f"run {run.run_id} has just ended")
    except MlflowException as error:
        raise UserError(unreachable(store.uri, error)) from error
    return StopRequest(run, is_repeated, _continuing(run))


def _running(store: Store, name: str) -> StoredRun:
    """Return the one RUNNING run of an experiment or a study, without those below it."""
    ids = {known: experiment_id for experiment_id, known in store.experiment_names().items()}
    own = [ids[each] for each in (name, f"{name}{SWEEP_SUFFIX}") if each in ids]
    if not own:
        raise UserError(unknown_name(store, name, ids))
    running = "attributes.status = 'RUNNING'"
    found = [run for run in store.search(own, running) if PARENT_RUN_TAG not in run.tags]
    if not found:
        raise UserError(f"{name} has no run that is RUNNING")
    if len(found) > 1:
        lines = [f"  {run.run_id}  {run.experiment}  {run.name}" for run in found[:MAX_LISTED]]
        raise UserError("\n".join([f"{len(found)} runs of {name} are RUNNING; name one:", *lines]))
    return found[0]


def _check_running(run: StoredRun) -> None:
    if run.status == "RUNNING" and (parent := run.tags.get(PARENT_RUN_TAG)):
        whole = f"study {run.tags[STUDY_TAG]}" if STUDY_TAG in run.tags else "another run"
        raise UserError(f"run {run.run_id} is part of {whole}. To stop that: litlab stop {parent}")
    continuing = _continuing(run) if run.status != "FINISHED" else ""
    hint = f". To continue it: {continuing}" if continuing else ""
    if run.status != "RUNNING":
        raise UserError(f"run {run.run_id} is {run.status}, not running{hint}")
    if PROCESS_TAG in run.tags and is_here(run.tags) and not is_alive(run.tags) and not run.tags.get(STUDY_TAG):
        raise UserError(f"run {run.run_id} is marked RUNNING, but its process is gone{hint}")


def _continuing(run: StoredRun) -> str:
    """Return the command that continues a run."""
    if is_single_fit(run):
        return shlex.join(["litlab", "resume", run.run_id, *tracking_uri_arguments(run.store.uri)])
    return run.tags.get(COMMAND_TAG, "")
