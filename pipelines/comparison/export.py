"""A comparison as data: records, JSON, CSV and Markdown."""

import csv
import io
import json
from typing import Any

from pipelines.comparison.formatting import footnote, markdown_table, metric_cells, param_cells, table_title
from pipelines.comparison.rows import Comparison
from pipelines.runtime.text import short_names
from pipelines.tracking.tags import EXPERIMENT_KEY, FIT_SECONDS, PARAMETERS, SELECTED_EPOCH

DIFFERENCE = ("mean", "ci95", "n", "paired", "within_noise")


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one record per row, best first, with JSON types only."""
    keys = [key for key in comparison.differing if key != EXPERIMENT_KEY]
    return [
        {
            "experiment": row.configuration.get(EXPERIMENT_KEY),
            "params": {key: row.configuration.get(key) for key in keys},
            "metric": comparison.metric,
            "mean": row.summary.mean,
            "sd": row.summary.sd,
            "n": row.summary.n,
            "ci95": row.summary.ci95,
            "seeds": [run.seed for run in row.runs],
            "values": list(row.values.values()),
            "configurations": row.configurations,
            "best_epoch": row.mean(SELECTED_EPOCH),
            "seconds": row.mean(FIT_SECONDS),
            "parameters": row.mean(PARAMETERS),
            "runs": [run.run_id for run in row.runs],
            "difference": {key: getattr(row.difference, key) for key in DIFFERENCE} if row.difference else None,
        }
        for row in comparison.rows
    ]


def as_json(comparison: Comparison) -> str:
    """Return the records as a JSON array."""
    return json.dumps(as_records(comparison), indent=2, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return a header and one line per row; lists are separated by spaces, params are named as in MLflow's tables."""
    flat = [_flatten(record) for record in as_records(comparison)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flatten(record: dict[str, Any]) -> dict[str, Any]:
    ends = ("_low", "_high")
    difference = record["difference"] or {}
    flat: dict[str, Any] = {"experiment": record["experiment"]}
    flat |= {f"params.{key}": value for key, value in record["params"].items()}
    flat |= {key: record[key] for key in ("metric", "mean", "sd", "n")}
    flat |= {f"ci95{end}": value for end, value in zip(ends, record["ci95"] or ("", ""), strict=True)}
    flat |= {key: " ".join(map(str, record[key])) for key in ("seeds", "values")}
    flat |= {key: record[key] for key in ("configurations", "best_epoch", "seconds", "parameters")}
    flat |= {"runs": " ".join(record["runs"]), "difference": difference.get("mean")}
    interval = difference.get("ci95") or ("", "")
    flat |= {f"difference_ci95{end}": value for end, value in zip(ends, interval, strict=True)}
    return flat | {f"difference_{key}": difference.get(key) for key in ("n", "paired", "within_noise")}


def as_markdown(comparison: Comparison) -> str:
    """Return a Markdown table of all rows, with its title above and its footnote below."""
    cells = [
        [*param_cells(row, comparison).values(), *metric_cells(row, comparison).values()] for row in comparison.rows
    ]
    header = [*short_names(comparison.columns).values(), *metric_cells(comparison.rows[0], comparison)]
    parts = [table_title(comparison), markdown_table([header, *cells], padded=False)]
    note = footnote(comparison.rows).replace("*", "\\*")
    return "\n\n".join([*parts, note] if note else parts) + "\n"


FORMATS = {"json": as_json, "csv": as_csv, "md": as_markdown}
