"""The table of `litlab compare` on a terminal: as many columns as fit."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.comparison.formatting import BEST_TRIAL, footnotes, look_note, metric_cells, param_cells, table_title
from pipelines.runtime.console import SHORT_ID, Console, fits, table_console
from pipelines.runtime.text import escape_control_characters
from pipelines.tracking.tags import EXPERIMENT_KEY

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.comparison.row import Row
    from pipelines.comparison.rows import Comparison

MAX_ROWS = 40
NUMBER, RUN, RUNS = "row", "run", "runs"  # titles
CONFIGURATION = "configuration"  # title of the column that holds all keys, if they do not fit one column each
FIRST_OMITTED = ("parameters", "time", "epoch", "95 % interval")  # in this order, if there is no room for all
OPTIONAL = (*FIRST_OMITTED, RUN, "n")


def print_table(comparison: "Comparison", *, long: bool = False) -> None:
    """Print the first rows on each data set as a table that fits the terminal, and what it leaves out.

    Args:
        comparison: The rows.
        long: Whether to print all columns and rows, with the whole ids of all runs, whatever the width.
    """
    from rich.text import Text

    console = Console(highlight=False, width=100_000, soft_wrap=True) if long else table_console()
    for index, (data_set, part) in enumerate(comparison.by_data_set().items()):
        rows = part.rows if long else part.rows[:MAX_ROWS]
        table, omitted, usual = _long_table(part) if long else _fit_table(console, part, rows)
        more = len(part.rows) - len(rows)
        remarks = [
            usual,
            *footnotes(rows),
            *look_note(part),
            f"{more} more rows: --long shows all" if more else "",
            f"no room for {', '.join(omitted)}: --long shows all" if omitted else "",
        ]
        if index:
            console.print()
        console.print(Text(escape_control_characters(table_title(part, data_set))))
        console.print(table)
        for line in filter(None, remarks):
            console.print(Text(escape_control_characters(line)))


def _long_table(comparison: "Comparison") -> tuple["Table", Sequence[str], str]:
    params, values = _cells(comparison, comparison.rows)
    runs = [" ".join(run.run_id for run in row.runs) for row in comparison.rows]
    full = [{**_without([cells], {RUN})[0], RUNS: ids} for cells, ids in zip(values, runs, strict=True)]
    return _table(comparison.rows, params, full), (), ""


def _fit_table(
    console: "Console", comparison: "Comparison", rows: Sequence["Row"]
) -> tuple["Table", Sequence[str], str]:
    """Return the table with as many columns as fit, the columns that were left out, and a remark on the keys.

    If the keys do not fit one column each, they share one, without the values that most rows have.
    """
    params, values = _cells(comparison, rows)
    for count in range(len(OPTIONAL) + 1):
        omitted = [name for name in OPTIONAL[:count] if name in values[0]]
        table = _table(rows, params, _without(values, set(omitted)))
        if fits(console, table):
            return table, omitted, ""
        if count == len(FIRST_OMITTED):
            break
    joined, usual = _join(params)
    longest = max(len(word) for cells in joined for word in (CONFIGURATION, *cells[CONFIGURATION].split()))
    for count in range(len(FIRST_OMITTED), len(OPTIONAL) + 1):
        omitted = [name for name in OPTIONAL[:count] if name in values[0]]
        shown = _without(values, set(omitted))
        if fits(console, _table(rows, [{CONFIGURATION: "-" * longest} for _ in rows], shown)):
            break
    return _table(rows, joined, shown), omitted, f"all others: {usual}" if usual else ""


def _join(params: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], str]:
    """Return the cells in one column, without the value of a key that most rows have, and these values."""
    counts = {name: Counter(cells[name] for cells in params).most_common(1)[0] for name in params[0]}
    usual = {name: text for name, (text, count) in counts.items() if 2 * count > len(params) and name != EXPERIMENT_KEY}

    def join(cells: dict[str, str]) -> str:
        named = [(name, text or "none") for name, text in cells.items()]
        speaks = (name == EXPERIMENT_KEY or re.match("[A-Z]", text) for name, text in named)  # a class says what it is
        return " ".join(text if alone else f"{name}={text}" for (name, text), alone in zip(named, speaks, strict=True))

    rows = [{name: text for name, text in cells.items() if usual.get(name) != text} for cells in params]
    return [{CONFIGURATION: join(cells)} for cells in rows], join({name: text for name, text in usual.items() if text})


def _cells(comparison: "Comparison", rows: Sequence["Row"]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the cells of each row's keys and of its values, without empty columns of values."""
    params = param_cells(rows, comparison)
    values = [{**metric_cells(row, comparison), RUN: row.runs[0].run_id[:SHORT_ID]} for row in rows]
    empty = {name for name in values[0] if not any(cells[name] for cells in values)}
    return params, _without(values, empty)


def _without(rows: Sequence[dict[str, str]], columns: set[str]) -> list[dict[str, str]]:
    return [{name: text for name, text in cells.items() if name not in columns} for cells in rows]


def _table(rows: Sequence["Row"], params: Sequence[dict[str, str]], values: Sequence[dict[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(NUMBER, justify="right", no_wrap=True)
    for name in params[0]:
        table.add_column(Text(escape_control_characters(name)), overflow="fold")
    for name in values[0]:
        left = name in ("verdict", RUN, RUNS)
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=True)
    for row, keys, cells in zip(rows, params, values, strict=True):
        texts = [str(row.number), *keys.values(), *cells.values()]
        style = {"best": "bold", BEST_TRIAL: "bold", "worse": "dim"}.get(cells["verdict"])
        table.add_row(*(Text(escape_control_characters(text)) for text in texts), style=style)
    return table
