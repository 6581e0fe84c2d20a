"""Tables and durations for the terminal. Imports nothing heavy."""

import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import console
from rich.table import Table
from rich.text import Text

from pipelines.runtime.metric_names import by_loader
from pipelines.runtime.notebook import in_notebook
from pipelines.runtime.text import escape_control_characters

MAX_COLUMNS = 4
METRIC_TITLES = {"acc": "accuracy"}
SHORT_ID = 8  # characters of a run id where the whole one does not fit; every command takes them
UNLIMITED_WIDTH = 1000  # columns, if the output is not a terminal
DAY = 86400  # seconds


class Console(console.Console):
    """A console of rich, but a closed output raises BrokenPipeError, as for `print`; rich itself exits with code 1.

    In a notebook it prints text. There, rich would make an output of each line, or print the control sequences of a
    terminal, since the kernel sets FORCE_COLOR.
    """

    def __init__(self, **settings: Any) -> None:
        in_text = {"force_jupyter": False, "force_terminal": False} if in_notebook() else {}
        super().__init__(**in_text | settings)

    def on_broken_pipe(self) -> None:
        raise


def table_console() -> Console:
    """Return a console for tables: as wide as the terminal, or as `COLUMNS` says, and without a limit in a pipe."""
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, width=UNLIMITED_WIDTH)


def fits(console: Console, table: Table) -> bool:
    """Return whether a table fits without wrapped or shortened cells."""
    return width_of(console, table) <= console.width


def width_of(console: Console, table: Table) -> int:
    """Return the columns that a table takes without wrapped or shortened cells."""
    return console.measure(table, options=console.options.update(width=UNLIMITED_WIDTH)).maximum


def print_results(title: str, rows: dict[str, dict[str, float]], facts: dict[str, str]) -> None:
    """Print metrics as a table and facts below it, one a line.

    Args:
        title: Title of the table; without metrics, it is printed with "no metrics".
        rows: Metrics by split. Each split is a row, or a column if there are more than `MAX_COLUMNS` metrics.
        facts: Texts by name.
    """
    console = Console(soft_wrap=True)
    if any(rows.values()):
        console.print(numeric_table(title, _metric_cells(rows)))
    else:
        console.print(f"{escape_control_characters(title)}: no metrics", highlight=False, markup=False)
    print_facts(facts)


def print_facts(facts: Mapping[str, str], width: int | None = None, *, wrap: bool = False) -> None:
    """Print texts by name, one a line.

    Args:
        facts: The texts.
        width: Characters for the names; by default those of the longest.
        wrap: Whether to continue long texts on further lines, below their beginning.
    """
    console = Console(soft_wrap=True)
    width = max(map(len, facts), default=0) if width is None else width
    for name, value in facts.items():
        text = escape_control_characters(f"{name:<{width}}  {value}")
        if wrap:
            text = textwrap.fill(text, console.width, subsequent_indent=" " * (width + 2), break_on_hyphens=False)
        console.print(text, highlight=False, markup=False)


def _metric_cells(rows: dict[str, dict[str, float]]) -> list[list[str]]:
    """Return the header and the rows of a table of metrics, transposed if there are many metrics."""
    metrics = by_loader(dict.fromkeys(key for values in rows.values() for key in values))
    titles = [METRIC_TITLES.get(metric, metric) for metric in metrics]
    cells = {(split, metric): f"{value:.4f}" for split, values in rows.items() for metric, value in values.items()}
    if len(metrics) <= MAX_COLUMNS:
        return [["", *titles], *([split, *(cells.get((split, metric), "") for metric in metrics)] for split in rows)]
    body = [
        [title, *(cells.get((split, metric), "") for split in rows)]
        for title, metric in zip(titles, metrics, strict=True)
    ]
    return [["", *rows], *body]


def numeric_table(title: str, lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of numbers; rich's markup in a cell is shown as text.

    Args:
        title: Title, or "" for none.
        lines: Header and rows. The first column is aligned left, the others right.
    """
    table = Table(
        title=Text(escape_control_characters(title), style="table.title") if title else None,
        title_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for index, name in enumerate(lines[0]):
        table.add_column(Text(escape_control_characters(name)), justify="right" if index else "left", no_wrap=True)
    for cells in lines[1:]:
        table.add_row(*(Text(escape_control_characters(text)) for text in cells))
    return table


def format_duration(seconds: float) -> str:
    """Format a duration, such as 41.2 s, 3 min 20 s or 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_age(milliseconds: int, now: float | None = None) -> str:
    """Return how long ago a time was, such as "5 min ago"; the date, if it was more than a week ago."""
    seconds = max(0.0, (time.time() if now is None else now) - milliseconds / 1000)
    if seconds >= 7 * DAY:
        return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d}"
    units = (("d", DAY), ("h", 3600), ("min", 60))
    return next((f"{int(seconds // size)} {unit} ago" for unit, size in units if seconds >= size), "just now")
