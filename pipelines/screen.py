"""Tables and times for a person to read; imports nothing heavy."""

from rich.console import Console
from rich.table import Table


def results_table(title: str, rows: dict[str, dict[str, float]], facts: dict[str, str]) -> None:
    """Print loss and accuracy of each split, then facts, one a line."""
    console = Console(soft_wrap=True)
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    kinds = list(dict.fromkeys(key for metrics in rows.values() for key in metrics))
    for kind in kinds:
        table.add_column({"acc": "accuracy"}.get(kind, kind), justify="right")
    for split, metrics in rows.items():
        table.add_row(split, *(f"{metrics[kind]:.4f}" if kind in metrics else "" for kind in kinds))
    console.print(table)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, markup=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 41.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
