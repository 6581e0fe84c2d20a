"""Tables and times for a person to read; imports nothing heavy."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.runtime.text import escape_control_characters

MAX_COLUMNS = 4


def print_results(title: str, rows: dict[str, dict[str, float]], facts: dict[str, str]) -> None:
    """Print the metrics of each split, one split a line unless there are many metrics, then facts, one a line."""
    console = Console(soft_wrap=True)
    kinds = list(dict.fromkeys(key for metrics in rows.values() for key in metrics))
    shown = {kind: {"acc": "accuracy"}.get(kind, kind) for kind in kinds}
    cells = {(split, kind): f"{value:.4f}" for split, metrics in rows.items() for kind, value in metrics.items()}
    if len(kinds) <= MAX_COLUMNS:
        body = [[split, *(cells.get((split, kind), "") for kind in kinds)] for split in rows]
        header = ["", *shown.values()]
    else:
        body = [[shown[kind], *(cells.get((split, kind), "") for split in rows)] for kind in kinds]
        header = ["", *rows]
    console.print(numeric_table(title, [header, *body]))
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        console.print(escape_control_characters(f"{name:<{width}}  {value}"), highlight=False, markup=False)


def numeric_table(title: str, lines: Sequence[Sequence[str]]) -> Table:
    """A table of figures, right-aligned but for the first column, below the header; rich's markup is text in it."""
    made = Table(
        title=Text(escape_control_characters(title), style="table.title") if title else None,
        title_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for number, name in enumerate(lines[0]):
        made.add_column(Text(escape_control_characters(name)), justify="right" if number else "left", no_wrap=True)
    for cells in lines[1:]:
        made.add_row(*(Text(escape_control_characters(text)) for text in cells))
    return made


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: 41.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
