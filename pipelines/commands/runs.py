"""`litlab runs`: list runs of any status."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser, add_run_filters, check_run_filters
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import escape_control_characters, redact_credentials, shorten
from pipelines.tracking.uri import store_uri

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.tracking.listing import ListedRun, Measured

DESCRIPTION = """List runs of any status, newest first. Without NAME, runs that belong to a sweep
or to several seeds are left out: only their summary run is listed."""
LAYOUTS = (  # columns that are left out, and characters of a name: the first layout that fits is taken
    ((), 60),
    (("user",), 40),
    (("user",), 24),
    (("user", "took"), 24),
    (("user", "took"), 14),
    (("user", "took", "experiment"), 24),
    (("user", "took", "experiment"), 11),
    (("user", "took", "experiment", "started"), 20),
    (("user", "took", "experiment", "name"), 0),
    (("user", "took", "experiment", "name", "started"), 0),
)
SHORT_REASON = 16  # characters of a reason that are always shown; it takes the room that is left


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="an experiment or a study (all)")
    add("--last", type=int, default=20, metavar="N", help="at most so many runs (%(default)s)")
    add_run_filters(parser)
    add("--format", choices=("table", "json", "csv"), default="table", metavar="FORMAT", help="table, json or csv")
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the runs."""
    options = vars(make_parser(verb).parse(argv))
    if options["last"] < 1:
        raise UserError(f"--last {options['last']}: give a number of runs, 1 or more")
    output = options.pop("format")
    check_run_filters(options)
    from pipelines.tracking.listing import list_runs

    runs = list_runs(**options)
    if output == "json":
        print(json.dumps([run.record() for run in runs], indent=2))
    elif output == "csv":
        fields = ["run_id", "name", "experiment", "status", "reason", "user", "started", "ended", "seconds"]
        fields += ["selected_metric", "selected", "test_metric", "test"]
        writer = csv.DictWriter(sys.stdout, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.record() for run in runs)
    elif not runs:
        print(f"no runs in {redact_credentials(store_uri(options['tracking_uri']))}")
    else:
        _print_table(runs)
    return 0


def _print_table(runs: Sequence["ListedRun"]) -> None:
    """Print as many columns as fit the terminal."""
    from pipelines.runtime.console import table_console, width_of

    console = table_console()
    selected, tested = _names(run.selected for run in runs), _names(run.test for run in runs)
    cells = [_cells(run, selected, tested) for run in runs]
    constant = {"user"} if len({row["user"] for row in cells}) == 1 else set()
    constant |= set() if any(row["reason"] for row in cells) else {"reason"}
    for omitted, length in LAYOUTS:
        kept = [{key: text for key, text in row.items() if key not in {*omitted, *constant}} for row in cells]
        rows = [_shortened(row, {"name": length, "reason": SHORT_REASON}) for row in kept]
        if (room := console.width - width_of(console, _table(rows))) >= 0:
            break
    console.print(_table([_shortened(row, {"name": length, "reason": SHORT_REASON + max(0, room)}) for row in kept]))


def _shortened(row: Mapping[str, str], lengths: Mapping[str, int]) -> dict[str, str]:
    return {key: shorten(text, lengths.get(key, len(text))) for key, text in row.items()}


def _names(column: Iterable["Measured | None"]) -> set[str]:
    return {measured.metric for measured in column if measured}


def _cells(listed: "ListedRun", selected: set[str], tested: set[str]) -> dict[str, str]:
    from pipelines.runtime.console import SHORT_ID, format_age, format_duration
    from pipelines.tracking.tags import USER_TAG

    run = listed.run
    return {
        "id": run.run_id[:SHORT_ID],
        "experiment": run.experiment,
        "name": run.name,
        "status": run.status.lower(),
        **_metric(listed.selected, selected, "selected"),
        **_metric(listed.test, tested, "test"),
        "started": format_age(run.started),
        "took": format_duration(listed.seconds),
        "user": run.tags.get(USER_TAG, ""),
        "reason": listed.failure,
    }


def _metric(measured: "Measured | None", names: set[str], title: str) -> dict[str, str]:
    """Return the cell of a metric. Its name is the title of the column, if all runs have the same one."""
    if not names:
        return {}
    value = f"{measured.value:.4f}" if measured else ""
    if len(names) == 1:
        return {next(iter(names)): value}
    return {title: f"{measured.metric} {value}" if measured else ""}


def _table(rows: Sequence[dict[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    styles = {"failed": "red", "killed": "yellow", "running": "green"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        numeric = all(_is_number(row[name]) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        cells = (Text(escape_control_characters(text), style=styles.get(text, "")) for text in row.values())
        table.add_row(*cells)
    return table


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "").replace("-", "").isdigit()
