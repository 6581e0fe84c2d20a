"""`litlab diff`: show what differs between two runs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser
from pipelines.runtime.text import escape_control_characters

if TYPE_CHECKING:
    from pipelines.comparison.run_diff import RunDiff

MAX_KEY = 36  # columns of a key; a longer one is folded
DESCRIPTION = """Show what differs between two runs of any status: configuration, data, code,
versions, machine and metrics. What is equal is not shown. Files with changes
that were not committed are listed with the lines that these add and remove."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    parser.add_argument("one", **RUN_ID)
    parser.add_argument("other", **RUN_ID | {"help": "another run"})
    parser.add_argument("--code", action="store_true", help="print how the uncommitted changes differ, as a patch")
    parser.add_argument("--format", choices=("table", "json"), default="table", metavar="FORMAT", help="table or json")
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print what differs."""
    options = make_parser(verb).parse(argv)
    from pipelines.comparison.run_diff import diff_runs

    diff = diff_runs(options.one, options.other, tracking_uri=options.tracking_uri)
    if options.code:
        print(_code(diff))
        return 0
    if options.format == "json":
        print(json.dumps({"runs": [run.run_id for run in diff.runs], **diff.sections}, indent=2))
        return 0
    _print_table(diff)
    return 0


def _code(diff: "RunDiff") -> str:
    from pipelines.comparison.code_diff import difference
    from pipelines.runtime.console import SHORT_ID

    one, other = (f"{run.run_id[:SHORT_ID]} {run.name}" for run in diff.runs)
    text = escape_control_characters(difference(*diff.changes, (one, other)))
    return text or "the runs kept no uncommitted changes, or the same ones"


def _print_table(diff: "RunDiff") -> None:
    from rich.table import Table
    from rich.text import Text

    from pipelines.runtime.console import SHORT_ID, Console

    table = Table(box=None, header_style="bold", pad_edge=False)
    longest = max((len(key) + 2 for keys in diff.sections.values() for key in keys), default=0)
    table.add_column("", overflow="fold", width=min(longest, MAX_KEY))
    for title in (f"{run.run_id[:SHORT_ID]} {run.name}" for run in diff.runs):
        table.add_column(Text(escape_control_characters(title)), overflow="fold", ratio=1)
    for section, keys in diff.sections.items():
        if keys:
            table.add_row(Text(section, style="bold"), "", "")
        for key, values in keys.items():
            cells = ("-" if value is None else escape_control_characters(value) for value in values)
            table.add_row(Text(f"  {escape_control_characters(key)}"), *map(Text, cells))
    Console(highlight=False).print(table)
    if not any(diff.sections.values()):
        print("nothing differs")
