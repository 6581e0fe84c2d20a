"""Send to the tracking store what it could not receive while runs were active."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking import outbox
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.outbox import Outbox
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, REASON_TAG
from pipelines.tracking.uri import database_file, store_uri


@dataclass(frozen=True)
class SyncedRun:
    """What `sync` did with a run.

    Attributes:
        status: Final status of the run; "" if it had not ended before the call.
        outcome: "sent", "running" (nothing is done) or "unsent".
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
    boxes = outbox.waiting(tracking_uri)
    if unknown := set(run_ids) - {box.run_id for box in boxes}:
        raise UserError(f"no unsent data here of run {', '.join(sorted(unknown))}")
    find_store = _store_finder(tracking_uri)
    selected = [box for box in boxes if not run_ids or box.run_id in run_ids]
    return [_sync_run(box, find_store, named=bool(run_ids)) for box in selected]


def _store_finder(tracking_uri: str | None) -> Callable[[Outbox], Store]:
    """Return a function that connects to a run's store; a store that does not answer is tried once."""

    @cache
    def connect(uri: str) -> Store | str:
        try:
            return Store(uri)
        except UserError as error:
            return str(error)

    def find(box: Outbox) -> Store:
        store = connect(tracking_uri or _uri_with_password(box))
        if isinstance(store, str):
            raise UserError(store)
        return store

    return find


def _sync_run(box: Outbox, find_store: Callable[[Outbox], Store], *, named: bool) -> SyncedRun:
    from mlflow.exceptions import MlflowException

    try:
        with box.held():
            outcome, message = _send(box, find_store, named=named)
    except UserError as error:
        outcome, message = "unsent", str(error)
    except (MlflowException, OSError) as error:
        outcome, message = "unsent", f"not sent: {first_line(error)}"
    return SyncedRun(box.run_id, box.name, box.status, outcome, message, box.home)


def _send(box: Outbox, find_store: Callable[[Outbox], Store], *, named: bool) -> tuple[str, str]:
    """Send a run whose lock is held, if its process has ended; return outcome and message."""
    current = Outbox.load(box.home)
    if current is None:  # another process has just sent it
        return "sent", f"sent to {box.uri}"
    if is_alive(current.process) and is_here(current.process):
        return "running", "still running: left alone"
    if not is_here(current.process) and not named:
        host = current.process.get(HOST_TAG, "another machine")
        return "unsent", f"belongs to {host}: run litlab sync there, or give the run's id here if it has ended"
    return _deliver(current, find_store(current))


def _deliver(box: Outbox, store: Store) -> tuple[str, str]:
    from pipelines.tracking.delivery import Delivery
    from pipelines.tracking.metrics_log import MetricsLog

    run = store.find(box.run_id)
    if run.status == "FINISHED" and box.status != "FINISHED":
        return "unsent", f"the run finished on another machine; if nothing here is needed, delete {box.home}"
    if not box.status:
        died = run.status == "RUNNING"
        box.status, box.reason = ("KILLED", "its process died") if died else (run.status, "")
        box.end_time = int(max(file.stat().st_mtime for file in [box.home, *box.artifacts.iterdir()]) * 1000)
    if box.status == "FINISHED" and REASON_TAG in run.tags:  # another process took it for dead
        store.client.delete_tag(box.run_id, REASON_TAG)
    delivery = Delivery(store, box, MetricsLog(box.artifacts / "metrics.jsonl"), new=False)
    delivery.send()
    if delivery.refused:
        return "unsent", f"refused: {'; '.join(delivery.refused)}"
    box.remove()
    return "sent", f"sent to {box.uri}"


def _uri_with_password(box: Outbox) -> str:
    """Return the tracking URI of a run, with its password if that is known here.

    Raises:
        UserError: The password is unknown, or the database is missing.
    """
    if redact_credentials(store_uri()) == box.uri:
        return store_uri()
    if ":***@" in box.uri:
        raise UserError(f"{box.uri} needs a password: give the URI with --tracking_uri")
    file = database_file(box.uri)
    if file and not file.is_file():
        raise UserError(f"{box.uri} does not exist")
    return box.uri
