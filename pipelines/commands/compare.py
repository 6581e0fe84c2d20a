"""`litlab compare`: compare finished runs, as a table or as data."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.text import escape_control_characters, format_command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipelines.comparison.rows import Comparison, Row

MAX_ROWS = 40  # of the table
UNLIMITED_WIDTH = 1000  # columns, if the output is not a terminal
CONFIGURATION = "configuration"  # title of the column that holds all keys, if they do not fit one column each
OPTIONAL = ("parameters", "time", "epoch", "95 % interval", "n")  # left out in this order if they do not fit
HELP = """usage: litlab compare [NAME ...] [--by KEY ...] [--metric METRIC] [...]

Compare finished runs. Runs that differ only in the seed are one row: mean,
standard deviation, 95 % interval, and the difference to the best row, paired by
seed. It is within noise if the 95 % interval of the difference contains 0.

  NAME                an experiment, a study or a run id; default: all
  --by KEY ...        one row for each value of these keys (data.n_train); runs
                        that agree in seed and all other keys are paired
  --metric METRIC     test/acc, selected/val/loss, fit_seconds ...
  --filter "..."      MLflow filter: "params.model.dropout = '0.3' and
                        metrics.test/acc > 0.9"
  --format FORMAT     table, json, csv or md (table: the first 40 rows)
  --plot DIR          save figures as PNG and SVG in a folder, and log them with
                        the table as a run of the experiment "comparisons"
  --tracking_uri URI  where runs are stored (default: mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab compare`, and print the comparison."""
    options = _parse(verb, argv)
    from pipelines.comparison.compare import compare
    from pipelines.comparison.export import FORMATS

    comparison = compare(
        options.names,
        metric=options.metric,
        by=options.by,
        filter_string=options.filter,
        tracking_uri=options.tracking_uri,
    )
    for note in comparison.notes:
        logger.info(f"note: {note}")
    is_table = options.format == "table"
    if is_table:
        _print_table(comparison)
    else:
        print(FORMATS[options.format](comparison), end="")
    if options.plot:
        from pipelines.comparison.figures import draw_figures, log_comparison

        run_id = log_comparison(comparison, draw_figures(comparison), options.plot, format_command(verb, argv))
        print(f"figures  {options.plot}\nrun      {run_id}", file=sys.stdout if is_table else sys.stderr)
    return 0


def _parse(verb: str, argv: Sequence[str]) -> argparse.Namespace:
    parser = VerbParser(verb, HELP)
    parser.add_comparison_arguments()
    parser.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")
    parser.add_argument("--plot", type=Path)
    return parser.parse(argv)


def _print_table(comparison: "Comparison") -> None:
    """Print the first rows as a table that fits the terminal, and what it leaves out."""
    from rich.console import Console
    from rich.text import Text

    from pipelines.comparison.formatting import footnote, table_title

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=UNLIMITED_WIDTH)
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
    from pipelines.comparison.rows import short_names

    names = short_names(comparison.columns)
    params = [{names[key]: text for key, text in param_cells(row, comparison).items()} for row in rows]
    metrics = [metric_cells(row, comparison) for row in rows]
    empty = {name for name in metrics[0] if not any(cells[name] for cells in metrics)}
    for count in range(len(OPTIONAL) + 1):
        omitted = [name for name in OPTIONAL[:count] if name not in empty]
        table = _table(params, _without(metrics, {*empty, *omitted}))
        if console.measure(table, options=console.options.update(width=UNLIMITED_WIDTH)).maximum <= console.width:
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
