"""A comparison as a table of two keys, such as models by data sets. Imports nothing heavy."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.comparison.columns import format_value
from pipelines.comparison.data_sets import DATA_KEY
from pipelines.comparison.formatting import format_mean_sd, markdown_table
from pipelines.comparison.latex import latex_table
from pipelines.comparison.row import Row
from pipelines.comparison.rows import Comparison
from pipelines.runtime.text import short_names

NONE = "none"  # of a key that is not set


@dataclass(frozen=True)
class Pivot:
    """Means by the values of two keys.

    Attributes:
        metric: The metric.
        lower_is_better: Whether lower values are better.
        keys: The key of the lines and that of the columns.
        lines: Values of the first key.
        columns: Values of the second key.
        cells: The runs with two values; a pair without runs is missing.
        notes: What the reader should know.
        data_set: The data set of all cells, if there are several and the keys do not tell it; else "".
    """

    metric: str
    lower_is_better: bool
    keys: tuple[str, str]
    lines: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Row]
    notes: list[str]
    data_set: str = ""

    @property
    def title(self) -> str:
        better = "lower" if self.lower_is_better else "higher"
        lines, columns = short_names(self.keys).values()
        on = f" on {self.data_set}" if self.data_set else ""
        return f"{self.metric}{on} by {lines} and {columns}: mean ± sd (n), {better} is better"

    def text(self, line: str, column: str) -> str:
        """Return a cell: "0.984 ± 0.012 (3)"."""
        row = self.cells.get((line, column))
        return f"{format_mean_sd(row.summary.mean, row.summary.sd)} ({row.summary.n})" if row else ""

    def table(self) -> list[list[str]]:
        """Return the cells of a header and of each line."""
        header = [short_names(self.keys)[self.keys[0]], *map(format_value, self.columns)]
        return [header, *([format_value(line), *(self.text(line, one) for one in self.columns)] for line in self.lines)]


def pivot(comparison: Comparison) -> list[Pivot]:
    """Arrange rows that two `by` keys make by these keys: in a table for each data set, unless a key tells it."""
    if DATA_KEY in comparison.differing:
        return [_arrange(comparison)]
    return [_arrange(part, data_set) for data_set, part in comparison.by_data_set().items()]


def _arrange(comparison: Comparison, data_set: str = "") -> Pivot:
    first, second = comparison.differing
    cells = {(row.value(first) or NONE, row.value(second) or NONE): row for row in comparison.rows}
    lines, columns = (sorted({pair[index] for pair in cells}, key=_natural) for index in (0, 1))
    pooled = sum(row.configurations > 1 for row in cells.values())
    notes = [f"{pooled} of {len(cells)} cells pool several configurations"] if pooled else []
    keys = (first, second)
    return Pivot(comparison.metric, comparison.lower_is_better, keys, lines, columns, cells, notes, data_set)


def _natural(text: str) -> tuple[float, str]:
    """Order numbers by their size, and other values by their short names."""
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), re.sub(r"\W", " ", format_value(text)).lower()


def records(tables: Sequence[Pivot]) -> list[dict[str, Any]]:
    """Return one record for each pair of values that has runs."""
    return [
        {
            **({"data_set": table.data_set} if table.data_set else {}),
            **dict(zip(table.keys, pair, strict=True)),
            "metric": table.metric,
            "mean": row.summary.mean,
            "sd": row.summary.sd,
            "n": row.summary.n,
            "ci95": row.summary.ci95,
            "configurations": row.configurations,
            "runs": [run.run_id for run in row.runs],
        }
        for table in tables
        for pair in ((line, column) for line in table.lines for column in table.columns)
        if (row := table.cells.get(pair))
    ]


def as_json(tables: Sequence[Pivot]) -> str:
    return json.dumps(records(tables), indent=2, allow_nan=False) + "\n"


def as_csv(tables: Sequence[Pivot]) -> str:
    """Return one line for each pair of values that has runs, as statistics programs read it."""
    text = io.StringIO()
    lines = [_flatten(record) for record in records(tables)]
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flatten(record: dict[str, Any]) -> dict[str, Any]:
    low, high = record["ci95"] or ("", "")
    others = {key: value for key, value in record.items() if key not in ("ci95", "runs")}
    return {**others, "ci95_low": low, "ci95_high": high, "runs": " ".join(record["runs"])}


def as_markdown(tables: Sequence[Pivot]) -> str:
    parts = (part for table in tables for part in (table.title, _markdown(table), *table.notes))
    return "\n\n".join(parts) + "\n"


def _markdown(table: Pivot) -> str:
    return markdown_table(table.table(), padded=False)


def as_latex(tables: Sequence[Pivot]) -> str:
    """Return a LaTeX table for each, for the package booktabs."""
    return "\n".join(
        latex_table(table.table(), range(1, 1 + len(table.columns)), [table.title, *table.notes]) for table in tables
    )


FORMATS = {"json": as_json, "csv": as_csv, "md": as_markdown, "latex": as_latex}
