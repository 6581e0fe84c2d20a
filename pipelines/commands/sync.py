"""`litlab sync`: send to the tracking store what it could not receive while runs were active."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

if TYPE_CHECKING:
    from pipelines.tracking.sync import SyncedRun

DESCRIPTION = """Send data that tracking servers and databases could not receive while runs were
active. Data are stored once, no matter how often this command is called or
interrupted. Data that cannot be sent are kept, and the exit code is 1. Runs
that are still active and runs that were deleted are skipped."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    run_ids = f"{RUN_ID['help']} (default: all unsent runs here)"
    parser.add_argument("run_ids", metavar="RUN_ID", nargs="*", help=run_ids)
    forget = "delete the unsent data of these runs, which must have been deleted, instead of sending it"
    parser.add_argument("--forget", action="store_true", help=forget)
    where = "where to send, if the server has moved or needs a password (default: where each run belongs)"
    parser.add_tracking_uri(where)
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Send, and print the outcome of each run; 1 if data of an ended run are still unsent."""
    options = make_parser(verb).parse(argv)
    from pipelines.tracking.sync import forget, sync

    if options.forget:
        if not options.run_ids:
            raise UserError("--forget: name the runs whose unsent data are to be deleted")
        for folder in forget(options.run_ids, tracking_uri=options.tracking_uri):
            print(f"deleted {folder}")
        return 0
    runs = sync(options.run_ids, tracking_uri=options.tracking_uri)
    if not runs:
        print("nothing to send: the tracking stores have all runs of this machine")
        return 0
    _print_table(runs)
    for run in runs:
        if run.outcome == "deleted":
            logger.info(run.message)
    unsent = [run for run in runs if run.outcome == "unsent"]
    for run in unsent:
        logger.warning(f"unsent data of run {run.run_id} are kept in {run.folder}; nothing is lost")
    return 1 if unsent else 0


def _print_table(runs: "Sequence[SyncedRun]") -> None:
    from rich.table import Table
    from rich.text import Text

    from pipelines.runtime.console import Console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("run", "status", "name", "outcome"):
        table.add_column(column, no_wrap=column in ("run", "status"), overflow="fold")
    for run in runs:
        message = "deleted: not sent" if run.outcome == "deleted" else run.message
        table.add_row(*map(Text, (run.run_id, run.status or "not ended", run.name, message)))
    Console(highlight=False).print(table)
