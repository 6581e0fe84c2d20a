"""`litlab compare`: compare finished runs, as a table or as data."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser, add_comparison_arguments
from pipelines.runtime.log import logger
from pipelines.runtime.text import escape_control_characters, format_command

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.comparison.rows import Comparison, Row
    from pipelines.runtime.console import Console

MAX_ROWS = 40  # of the table
CONFIGURATION = "configuration"  # title of the column that holds all keys, if they do not fit one column each
OPTIONAL = ("parameters", "time", "epoch", "95 % interval", "n")  # left out in this order if they do not fit
DESCRIPTION = """Compare finished runs. Runs that differ only in the seed are one row: mean,
standard deviation, 95 % interval, and the difference to the best row, paired by
seed. It is within noise if the 95 % interval of the difference contains 0."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    add_comparison_arguments(parser)
    formats = ("table", "json", "csv", "md")
    table = "table, json, csv or md (table: the first 40 rows)"
    parser.add_argument("--format", choices=formats, default="table", metavar="FORMAT", help=table)
    plot = 'save figures as PNG and SVG in a folder, and log them with the table as a run of "comparisons"'
    parser.add_argument("--plot", type=Path, metavar="DIR", help=plot)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the comparison, and draw it if asked to."""
    options = vars(make_parser(verb).parse(argv))
    output, folder = options.pop("format"), options.pop("plot")
    from pipelines.comparison.compare import compare
    from pipelines.comparison.export import FORMATS

    comparison = compare(**options)
    for note in comparison.notes:
        logger.info(f"note: {note}")
    if output == "table":
        _print_table(comparison)
    else:
        print(FORMATS[output](comparison), end="")
    if folder:
        from pipelines.comparison.figures import draw_figures, log_comparison

        run_id = log_comparison(comparison, draw_figures(comparison), folder, format_command(verb, argv))
        print(f"figures  {folder}\nrun      {run_id}", file=sys.stdout if output == "table" else sys.stderr)
    return 0


def _print_table(comparison: "Comparison") -> None:
    """Print the first rows as a table that fits the terminal, and what it leaves out."""
    from rich.text import Text

    from pipelines.comparison.formatting import footnote, table_title
    from pipelines.runtime.console import table_console

    console = table_console()
    rows = comparison.rows[:MAX_ROWS]
    table, omitted = _fit_table(console, comparison, rows)
    more = len(comparison.rows) - len(rows)
    remarks = [
        footnote(rows),
        f"{more} more rows: --format json, csv or md shows all" if more else "",
        f"no room for {', '.join(omitted)}: --format json shows all" if omitted else "",
    ]
    console.print(Text(escape_control_characters(table_title(comparison))))
    console.print(table)
    for line in filter(None, remarks):
        console.print(Text(escape_control_characters(line)))


def _fit_table(console: "Console", comparison: "Comparison", rows: Sequence["Row"]) -> tuple["Table", Sequence[str]]:
    """Return the table with as many columns as fit, and the columns that were left out."""
    from pipelines.comparison.formatting import metric_cells, param_cells
    from pipelines.runtime.console import fits
    from pipelines.runtime.text import short_names

    names = short_names(comparison.columns)
    params = [{names[key]: text for key, text in param_cells(row, comparison).items()} for row in rows]
    metrics = [metric_cells(row, comparison) for row in rows]
    empty = {name for name in metrics[0] if not any(cells[name] for cells in metrics)}
    for count in range(len(OPTIONAL) + 1):
        omitted = [name for name in OPTIONAL[:count] if name not in empty]
        table = _table(params, _without(metrics, {*empty, *omitted}))
        if fits(console, table):
            return table, omitted
    joined = [{CONFIGURATION: "  ".join(f"{name}={text}" for name, text in cells.items() if text)} for cells in params]
    omitted = [name for name in omitted if name != "n"]
    return _table(joined, _without(metrics, {*empty, *omitted})), omitted


def _without(rows: Sequence[dict[str, str]], columns: set[str]) -> list[dict[str, str]]:
    return [{name: text for name, text in cells.items() if name not in columns} for cells in rows]


def _table(params: Sequence[dict[str, str]], metrics: Sequence[dict[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in params[0]:
        table.add_column(Text(escape_control_characters(name)), overflow="fold")
    for name in metrics[0]:
        table.add_column(Text(name), justify="left" if name == "verdict" else "right", no_wrap=True)
    for keys, values in zip(params, metrics, strict=True):
        style = {"best": "bold", "worse": "dim"}.get(values["verdict"])
        cells = (Text(escape_control_characters(text)) for text in [*keys.values(), *values.values()])
        table.add_row(*cells, style=style)
    return table
