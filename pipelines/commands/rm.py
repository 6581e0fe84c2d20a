"""`litlab rm`: remove runs with everything that belongs to them."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser, add_run_filters, check_run_filters
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import count, escape_control_characters, format_mb

if TYPE_CHECKING:
    from pipelines.tracking.removal import Removal
    from pipelines.tracking.store import Store

MAX_LISTED = 20
DESCRIPTION = """Remove runs for good, with artifacts, checkpoints, models, unsent data and the
runs below them (trials, seeds, explanations). Runs that are active or have a
registered model are refused."""
EPILOG = """examples:
  litlab rm --status failed --since 7d --dry_run
  litlab rm --experiment digits-mlp --filter "metrics.test/acc < 0.5" --yes"""


def make_parser(verb: str) -> VerbParser:
    usage = "RUN_ID ... | FILTER [--dry_run] [--yes]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, epilog=EPILOG, needs_arguments=True)
    parser.add_argument("run_ids", metavar="RUN_ID", nargs="*", help=RUN_ID["help"])
    experiment = "runs of an experiment or a study: all, or those that match"
    parser.add_argument("--experiment", action="append", default=[], metavar="NAME", help=experiment)
    add_run_filters(parser)
    parser.add_argument("--dry_run", action="store_true", help="only list what would be removed, with its size")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    dead = "RUNNING runs on other machines are known to be dead"
    parser.add_argument("--dead", action="store_true", help=dead)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """List the runs, ask, and remove them; 1 if one of them could not be removed, or the answer is no."""
    options = make_parser(verb).parse(argv)
    filters = {key: getattr(options, key) for key in ("status", "filter_string", "tags", "since", "user")}
    check_run_filters(filters)
    filtered = bool(options.experiment) or any(filters.values())
    if filtered == bool(options.run_ids):
        raise UserError("name the runs, or select them with --experiment, --filter, --status, --tag, --since or --user")
    asks = not (options.dry_run or options.yes)
    if asks and not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on: give --yes, or --dry_run to see what would be removed")
    from pipelines.tracking.existing import existing_store
    from pipelines.tracking.listing import list_runs
    from pipelines.tracking.removal import named_runs, plan_removals

    store = existing_store(options.tracking_uri)
    if filtered:
        listed = list_runs(options.experiment, **filters, tracking_uri=options.tracking_uri)
        runs = [found.run for found in listed]
    else:
        runs = named_runs(store, options.run_ids)
    removals, refused = plan_removals(store, runs, named=not filtered, assume_dead=options.dead)
    for message in refused:
        logger.warning("left out: %s", message)
    if not removals:
        print("no runs to remove")
        return 0
    _print_plan(removals)
    if options.dry_run:
        print(f"{_summary(removals)} would be removed")
        return 0
    if asks and not _is_confirmed(removals):
        print("nothing was removed")
        return 1
    return _remove(store, removals)


def _is_confirmed(removals: "Sequence[Removal]") -> bool:
    try:
        return input(f"Remove {_summary(removals)}? This cannot be undone. [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _remove(store: "Store", removals: "Sequence[Removal]") -> int:
    from pipelines.tracking.removal import remove

    failures = 0
    for removal in removals:
        try:
            remove(removal)
        except UserError as error:
            failures += 1
            logger.error(str(error))
    done = len(removals) - failures
    print(f"removed {_summary(removals) if not failures else count(done, 'run')}")
    for study in {removal.run.tags["study"] for removal in removals if _is_study(removal)}:
        logger.info(f"Optuna keeps the trials of study {study}: to search again, litlab sweep ... --study OTHER")
    return 1 if failures else 0


def _is_study(removal: "Removal") -> bool:
    from pipelines.tracking.tags import STUDY_TAG, is_summary

    return STUDY_TAG in removal.run.tags and is_summary(removal.run.tags)


def _summary(removals: "Sequence[Removal]") -> str:
    children = sum(removal.is_child for removal in removals)
    runs = count(len(removals) - children, "run")
    below = f" and {count(children, 'run')} below" if children else ""
    return f"{runs}{below}, {format_mb(sum(removal.size for removal in removals))}"


def _print_plan(removals: "Sequence[Removal]") -> None:
    """Print a line for each run, a parent before its children; of many runs only the first."""
    from rich.table import Table
    from rich.text import Text

    from pipelines.runtime.console import SHORT_ID, table_console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "experiment", "name", "status", "size"):
        justify = "right" if column == "size" else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    shown = list(reversed(removals))[:MAX_LISTED]
    for removal in shown:
        run = removal.run
        name = f"  {run.name}" if removal.is_child else run.name
        cells = (run.run_id[:SHORT_ID], run.experiment, name, run.status.lower(), format_mb(removal.size))
        table.add_row(*(Text(escape_control_characters(text)) for text in cells))
    table_console().print(table)
    if len(removals) > len(shown):
        print(f"and {count(len(removals) - len(shown), 'more run')}")
