"""A comparison as data: records, JSON, CSV, Markdown and LaTeX."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from pipelines.comparison.formatting import markdown_table, metric_cells, param_cells, remarks, table_title, verdict
from pipelines.comparison.latex import latex_table
from pipelines.comparison.looks import Looks
from pipelines.comparison.rows import Comparison
from pipelines.tracking.tags import EXPERIMENT_KEY, FIT_SECONDS, PARAMETERS, SELECTED_EPOCH

NUMBERS = ("row", "mean ± sd", "n", "95 % interval", "difference", "epoch", "time", "parameters")  # aligned right
LOOKS = ("corrected_ci95", "test_look", "test_looks")
DIFFERENCE = ("mean", "ci95", "n", "paired", "within_noise")


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one record per row, with JSON types only: the rows on each data set, best first."""
    keys = [key for key in comparison.differing if key != EXPERIMENT_KEY]
    parts = {row.number: (name, part.looks) for name, part in comparison.by_data_set().items() for row in part.rows}
    return [
        {
            "row": row.number,
            "data_set": parts[row.number][0] or None,
            "experiment": row.configuration.get(EXPERIMENT_KEY),
            "params": {key: row.configuration.get(key) for key in keys},
            "metric": comparison.metric,
            "mean": row.summary.mean,
            "sd": row.summary.sd,
            "n": row.summary.n,
            "ci95": row.summary.ci95,
            **_looks(row.number, parts[row.number][1]),
            "seeds": [run.seed for run in row.runs],
            "values": list(row.values.values()),
            "configurations": row.configurations,
            "best_epoch": row.mean(SELECTED_EPOCH),
            "seconds": row.mean(FIT_SECONDS),
            "parameters": row.mean(PARAMETERS),
            "runs": [run.run_id for run in row.runs],
            "difference": {key: getattr(row.difference, key) for key in DIFFERENCE} if row.difference else None,
            "verdict": verdict(row, lower_is_better=comparison.lower_is_better),
            "baseline": row.baseline.number if row.baseline else None,
        }
        for row in comparison.rows
    ]


def _looks(number: int, looks: Looks | None) -> dict[str, Any]:
    if looks is None:
        return dict.fromkeys(LOOKS)
    return dict(zip(LOOKS, (looks.intervals[number], looks.numbers.get(number), looks.count), strict=True))


def as_json(comparison: Comparison) -> str:
    """Return the records as a JSON array."""
    return json.dumps(as_records(comparison), indent=2, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return a header and one line per row; lists are separated by spaces, params are named as in MLflow's tables."""
    flat = flat_records(comparison)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _text(value) for key, value in row.items()} for row in flat)
    return text.getvalue()


def _text(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def flat_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one record per row, with the columns of a table: `params.KEY`, and the ends of each interval."""
    return [_flatten(record) for record in as_records(comparison)]


def _flatten(record: dict[str, Any]) -> dict[str, Any]:
    ends = ("_low", "_high")
    difference = record["difference"] or {}
    flat: dict[str, Any] = {key: record[key] for key in ("row", "data_set", "experiment")}
    flat |= {f"params.{key}": value for key, value in record["params"].items()}
    flat |= {key: record[key] for key in ("metric", "mean", "sd", "n")}
    flat |= {f"ci95{end}": value for end, value in zip(ends, record["ci95"] or (None, None), strict=True)}
    flat |= {"difference": difference.get("mean")}
    interval = difference.get("ci95") or (None, None)
    flat |= {f"difference_ci95{end}": value for end, value in zip(ends, interval, strict=True)}
    flat |= {f"difference_{key}": difference.get(key) for key in ("n", "paired", "within_noise")}
    flat |= {key: record[key] for key in ("verdict", "baseline", "best_epoch", "seconds", "parameters")}
    corrected = record["corrected_ci95"] or (None, None)
    flat |= {f"corrected_ci95{end}": value for end, value in zip(ends, corrected, strict=True)}
    return flat | {key: record[key] for key in (*LOOKS[1:], "configurations", "seeds", "values", "runs")}


def table_lines(comparison: Comparison, *, first: Sequence[str] = ()) -> list[list[str]]:
    """Return the cells of a header and of each row, without empty columns of values.

    Args:
        comparison: The rows.
        first: Columns of values that stand before those of the keys.
    """
    metrics = [metric_cells(row, comparison) for row in comparison.rows]
    titles = [title for title in metrics[0] if any(cells[title] for cells in metrics)]
    begin, end = [title for title in first if title in titles], [title for title in titles if title not in first]
    params = param_cells(comparison.rows, comparison)
    header = ["row", *begin, *params[0], *end]
    cells = [
        [
            str(row.number),
            *(values[title] for title in begin),
            *keys.values(),
            *(values[title] for title in end),
        ]
        for row, keys, values in zip(comparison.rows, params, metrics, strict=True)
    ]
    return [header, *cells]


def as_markdown(comparison: Comparison) -> str:
    """Return a Markdown table of all rows on each data set, with its title above and its footnotes below."""
    parts = []
    for name, part in comparison.by_data_set().items():
        notes = [note.replace("*", "\\*") for note in remarks(part)]
        parts += [table_title(part, name), markdown_table(table_lines(part), padded=False), *notes]
    return "\n\n".join(parts) + "\n"


def as_latex(comparison: Comparison) -> str:
    """Return a LaTeX table of all rows on each data set, for the package booktabs."""
    parts = []
    for name, part in comparison.by_data_set().items():
        comments = [table_title(part, name), *remarks(part)]
        lines = table_lines(part)
        numbers = [index for index, title in enumerate(lines[0]) if title in NUMBERS]
        parts.append(latex_table(lines, numbers, comments))
    return "\n".join(parts)


FORMATS = {"json": as_json, "csv": as_csv, "md": as_markdown, "latex": as_latex}
