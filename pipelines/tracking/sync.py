"""Send to the tracking store what it could not receive while runs were active."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking import run_log
from pipelines.tracking.deleted import RunDeletedError, RunGoneError
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, REASON_TAG
from pipelines.tracking.uri import database_file, store_uri
from pipelines.tracking.writer import Writer


@dataclass(frozen=True)
class SyncedRun:
    """What `sync` did with a run.

    Attributes:
        status: Final status of the run; "" if it had not ended before the call.
        outcome: "sent", "running" or "deleted" (nothing is done), or "unsent".
        message: The outcome in words.
        folder: The folder of the run's unsent data; it is deleted once everything is sent.
    """

    run_id: str
    name: str
    status: str
    outcome: str
    message: str
    folder: Path


def sync(run_ids: Sequence[str] = (), *, tracking_uri: str | None = None) -> list[SyncedRun]:
    """Send unsent data of runs to their tracking stores.

    Data are stored once, however often this is called or interrupted. Data that cannot be sent are kept.

    Args:
        run_ids: The runs; empty means all unsent runs of this machine.
        tracking_uri: Where to send, if the server has moved or needs a password; by default where each run belongs.

    Returns:
        One result per run, the oldest run first; empty if there is nothing to send.

    Raises:
        UserError: A given run has no unsent data here.
    """
    logs = run_log.unsent_logs(tracking_uri)
    if unknown := set(run_ids) - {log.run_id for log in logs}:
        raise UserError(f"no unsent data here of run {', '.join(sorted(unknown))}")
    find_store = _store_finder(tracking_uri)
    selected = [log for log in logs if not run_ids or log.run_id in run_ids]
    return [_sync_run(log, find_store, named=bool(run_ids)) for log in selected]


def forget(run_ids: Sequence[str], *, tracking_uri: str | None = None) -> list[Path]:
    """Delete the unsent data of runs that were deleted.

    Args:
        run_ids: The runs.
        tracking_uri: See `sync`.

    Returns:
        The folders that were deleted.

    Raises:
        UserError: A run has no unsent data here, is still running, or was not deleted. Its data are kept.
    """
    logs = run_log.unsent_logs(tracking_uri)
    if unknown := set(run_ids) - {log.run_id for log in logs}:
        raise UserError(f"no unsent data here of run {', '.join(sorted(unknown))}")
    find_store = _store_finder(tracking_uri)
    selected = [log for log in logs if log.run_id in run_ids]
    for log in selected:
        with log.held():
            _forget(log, find_store(log))
    return [log.home for log in selected]


def _forget(log: RunLog, store: Store) -> None:
    if is_alive(log.process) and is_here(log.process):
        raise UserError(f"run {log.run_id} is still running: stop it first")
    with contextlib.suppress(RunGoneError):
        store.find(log.run_id)
        raise UserError(f"run {log.run_id} was not deleted: litlab sync {log.run_id} sends its data")
    log.remove()


def _store_finder(tracking_uri: str | None) -> Callable[[RunLog], Store]:
    """Return a function that connects to a run's store; a store that does not answer is tried once."""

    @cache
    def connect(uri: str) -> Store | str:
        try:
            return Store(uri)
        except UserError as error:
            return str(error)

    def find(log: RunLog) -> Store:
        store = connect(tracking_uri or _uri_with_password(log))
        if isinstance(store, str):
            raise UserError(store)
        return store

    return find


def _sync_run(log: RunLog, find_store: Callable[[RunLog], Store], *, named: bool) -> SyncedRun:
    from mlflow.exceptions import MlflowException

    try:
        with log.held():
            outcome, message = _send(log, find_store, named=named)
    except RunDeletedError as error:
        outcome, message = "deleted", str(error)
    except UserError as error:
        outcome, message = "unsent", str(error)
    except (MlflowException, OSError) as error:
        outcome, message = "unsent", f"not sent: {first_line(error)}"
    return SyncedRun(log.run_id, log.name, log.status, outcome, message, log.home)


def _send(log: RunLog, find_store: Callable[[RunLog], Store], *, named: bool) -> tuple[str, str]:
    """Send a run whose lock is held, if its process has ended; return outcome and message."""
    current = RunLog.load(log.home)
    if current is None:  # another process has just sent it
        return "sent", f"sent to {log.uri}"
    if is_alive(current.process) and is_here(current.process):
        return "running", "still running: left alone"
    if not is_here(current.process) and not named:
        host = current.process.get(HOST_TAG, "another machine")
        return "unsent", f"belongs to {host}: run litlab sync there, or give the run's id here if it has ended"
    return _deliver(current, find_store(current))


def _deliver(log: RunLog, store: Store) -> tuple[str, str]:
    run = store.find(log.run_id)
    log.move_to(store.uri)
    if run.status == "FINISHED" and log.status != "FINISHED":
        return "unsent", f"the run finished on another machine; if nothing here is needed, delete {log.home}"
    if not log.status:
        died = run.status == "RUNNING"
        log.status, log.reason = ("KILLED", "its process died") if died else (run.status, "")
        log.end_time = int(max(file.stat().st_mtime for file in [log.home, *log.artifacts.iterdir()]) * 1000)
    if log.status == "FINISHED" and REASON_TAG in run.tags:  # another process took it for dead
        store.client.delete_tag(log.run_id, REASON_TAG)
    writer = Writer(store, new=False)
    writer.send(log)
    if writer.refused:
        return "unsent", f"refused: {'; '.join(writer.refused)}"
    log.remove()
    return "sent", f"sent to {log.uri}"


def _uri_with_password(log: RunLog) -> str:
    """Return the tracking URI of a run, with its password if that is known here.

    Raises:
        UserError: The password is unknown, or the database is missing.
    """
    if redact_credentials(store_uri()) == log.uri:
        return store_uri()
    if ":***@" in log.uri:
        raise UserError(f"{log.uri} needs a password: give the URI with --tracking_uri")
    file = database_file(log.uri)
    if file and not file.is_file():
        raise UserError(f"{log.uri} does not exist: if it was moved, give its new place with --tracking_uri")
    return log.uri
