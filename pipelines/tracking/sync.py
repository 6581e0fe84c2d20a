"""`litlab sync`: what a store could not take while runs went on."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import outbox
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.outbox import Outbox
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, REASON_TAG
from pipelines.tracking.uri import database_file, store_uri

HELP = """usage: litlab sync [RUN_ID ...] [--tracking_uri URI]

Sends what tracking servers and databases could not take while runs went on.
What is sent is there once, however often this is called or interrupted; what
cannot be sent stays where it is, and the exit code is 1. Runs that are still
going on are left alone.

  RUN_ID              as printed by litlab fit (all runs that wait here)
  --tracking_uri URI  where to send, if the server has another address now, or
                        needs a password (where the run was to go)"""
ALIVE = "still running: left alone"


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab sync [RUN_ID ...] [--tracking_uri URI]`; 1 if something still waits that should not."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("run_id", nargs="*")
    parser.add_argument("--tracking_uri")
    options = parser.parse_args(argv)
    boxes = outbox.waiting(options.tracking_uri)
    wanted = options.run_id or [box.run_id for box in boxes]
    if unknown := set(wanted) - {box.run_id for box in boxes}:
        raise UserError(f"nothing of run {', '.join(sorted(unknown))} waits here")
    if not wanted:
        print("nothing waits: the stores have all runs of this machine")
        return 0
    chosen = [box for box in boxes if box.run_id in wanted]
    reach = _reaching(options.tracking_uri)
    outcomes = [_send(box, reach, named=bool(options.run_id)) for box in chosen]
    _show(chosen, outcomes)
    left = [box for box, outcome in zip(chosen, outcomes, strict=True) if outcome not in (_sent(box), ALIVE)]
    for box in left:
        print(f"litlab: what waits of run {box.run_id} is in {box.home}; nothing of it is lost", file=sys.stderr)
    return 1 if left else 0


def _reaching(uri: str | None) -> Callable[[Outbox], Store]:
    """What finds the store of a run; one that does not answer is asked once."""

    @cache
    def reach(address: str) -> Store | str:
        try:
            return Store(address)
        except UserError as error:
            return str(error)

    def find(box: Outbox) -> Store:
        store = reach(uri or _address(box))
        if isinstance(store, str):
            raise UserError(store)
        return store

    return find


def _send(box: Outbox, reach: Callable[[Outbox], Store], *, named: bool) -> str:
    """Send all of a run, and forget it here; returns what came of it, in words."""
    from mlflow.exceptions import MlflowException

    try:
        with box.held():
            now = Outbox.load(box.home)
            if now is None:
                return _sent(box)  # by another process, just now
            if is_alive(now.process) and is_here(now.process):
                return ALIVE
            if not is_here(now.process) and not named:
                host = now.process.get(HOST_TAG, "another machine")
                return f"of {host}: call litlab sync there, or name the run here if it has ended"
            return _deliver(now, reach(now))
    except UserError as error:
        return str(error)
    except (MlflowException, OSError) as error:
        return f"not taken: {redact_credentials(str(error).splitlines()[0])}"


def _deliver(box: Outbox, store: Store) -> str:
    from pipelines.tracking.delivery import Delivery
    from pipelines.tracking.metrics_log import Journal

    run = store.find(box.run_id)
    if run.status == "FINISHED" and box.status != "FINISHED":
        return f"finished elsewhere; if nobody needs what is here, delete {box.home}"
    if not box.status:
        died = run.status == "RUNNING"
        box.status, box.reason = ("KILLED", "its process died") if died else (run.status, "")
        box.end_time = int(max(file.stat().st_mtime for file in [box.home, *box.artifacts.iterdir()]) * 1000)
    if box.status == "FINISHED" and REASON_TAG in run.tags:  # others took it for dead
        store.client.delete_tag(box.run_id, REASON_TAG)
    delivery = Delivery(store, box, Journal(box.artifacts / "metrics.jsonl"), new=False)
    delivery.send()
    if delivery.refused:
        return f"refused: {'; '.join(delivery.refused)}"
    box.remove()
    return _sent(box)


def _sent(box: Outbox) -> str:
    return f"sent to {box.uri}"


def _address(box: Outbox) -> str:
    """The store of a run, with its password if that is known here."""
    if redact_credentials(store_uri()) == box.uri:
        return store_uri()
    if ":***@" in box.uri:
        raise UserError(f"{box.uri} needs its password: give it with --tracking_uri")
    file = database_file(box.uri)
    if file and not file.is_file():
        raise UserError(f"{box.uri} is gone")
    return box.uri


def _show(boxes: Sequence[Outbox], outcomes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, whole in (("run", True), ("status", True), ("name", False), ("outcome", False)):
        table.add_column(column, no_wrap=whole, overflow="fold")
    for box, outcome in zip(boxes, outcomes, strict=True):
        table.add_row(*map(Text, (box.run_id, box.status or "not ended", box.name, outcome)))
    Console(highlight=False).print(table)
