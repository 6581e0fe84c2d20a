"""Write an HTML page of finished runs: the comparison, and all that is needed to judge and repeat it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.comparison import intervals
from pipelines.comparison.compare import compare
from pipelines.comparison.export import NUMBERS, table_lines
from pipelines.comparison.formatting import remarks, table_title
from pipelines.comparison.metric_plots import row_labels
from pipelines.comparison.rows import Comparison
from pipelines.reporting.author_text import render_markdown
from pipelines.reporting.best_runs import describe_best_run
from pipelines.reporting.html_page import check_output_path, render, write
from pipelines.reporting.links import run_links, ui_address
from pipelines.reporting.parent_runs import read_parent_run
from pipelines.reporting.pictures import comparison_pictures
from pipelines.reporting.provenance import command_of, describe_data, describe_environment
from pipelines.reporting.summary import join_names, summarize_comparison
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import Mode
from pipelines.runtime.text import format_command, option_tokens, redact_credentials
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.tags import NOTE_TAG

MAX_CONFIGS = 50  # rows whose config.yaml is in the page
DEFAULT_PATH = Path("report.html")
VERDICT_FIRST = ("mean ± sd", "verdict")  # columns that a phone shows without scrolling


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        path: The HTML file.
        comparison: The comparison that it shows.
        missing: What could not be read or drawn, one sentence each.
    """

    path: Path
    comparison: Comparison
    missing: list[str]


def report(
    names: Sequence[str],
    *,
    out: Path = DEFAULT_PATH,
    metric: str | None = None,
    mode: Mode | None = None,
    by: Sequence[str] = (),
    filter_string: str = "",
    baseline: str | None = None,
    text: Path | None = None,
    ui: str | None = None,
    tracking_uri: str | None = None,
) -> Report:
    """Write one self-contained HTML page of finished runs.

    Args:
        names: Experiments, studies or run ids.
        out: The file; an earlier page of litlab is replaced.
        metric: See `pipelines.comparison.compare.compare`, as for the other arguments.
        mode: "min" if lower values are better, "max" if higher ones are; by default, the name of the metric tells.
        by: Keys whose values make the rows.
        filter_string: MLflow filter.
        baseline: The row that the others are compared with, see `pipelines.comparison.compare.compare`.
        text: A Markdown file of the author's, which stands below the result.
        ui: Address of the MLflow UI that run ids link to; by default that of the tracking server, if there is one.
        tracking_uri: MLflow database or server; by default MLFLOW_TRACKING_URI, or else the project's mlflow.db.

    Raises:
        UserError: No name is given, the file cannot be written, or the runs cannot be compared.
    """
    if not names:
        raise UserError("name what to report: experiments, studies or run ids (litlab list shows the experiments)")
    check_output_path(out)
    author_text = render_markdown(text) if text else ""
    comparison = compare(
        names,
        metric=metric,
        mode=mode,
        by=by,
        filter_string=filter_string,
        baseline=baseline,
        tracking_uri=tracking_uri,
    )
    options = {
        "--by": [*by],
        "--metric": metric,
        "--mode": mode,
        "--filter": filter_string,
        "--baseline": baseline,
        "--tracking_uri": tracking_uri,
    }
    arguments = [*names, *option_tokens(options)]
    own = {"--text": str(text) if text else None, "--ui": ui, "--out": str(out) if out != DEFAULT_PATH else None}
    commands = [
        format_command("report", [*arguments, *option_tokens(own)]),
        format_command("compare", arguments),
    ]
    context = page_context(comparison, ui)
    write(out, render("report.html", {**context, "own_commands": commands, "author_text": author_text}))
    return Report(out, comparison, context["missing"])


def page_context(comparison: Comparison, ui: str | None = None) -> dict[str, Any]:
    """Return the variables of the template report.html, besides the commands and the author's text.

    Args:
        comparison: The rows.
        ui: See `report`.
    """
    selection = comparison.selection
    runs = [run for row in comparison.rows for run in row.runs]
    store = runs[0].store
    labels, parts = row_labels(comparison), comparison.by_data_set()
    links = run_links(ui_address(store, ui), runs)
    parents = [read_parent_run(store, run_id) for run_id in dict.fromkeys(selection.parents)]
    pictures, not_drawn = comparison_pictures(comparison)
    data = describe_data(runs)
    missing = [
        *not_drawn,
        *(text for parent in parents for text in parent["missing"]),
        *(one["missing"] for one in data),
    ]
    started = sorted(run.started for run in runs)
    descriptions: dict[str, str] = {}
    for run in runs:
        descriptions.setdefault(run.experiment, run.tags.get(NOTE_TAG, ""))
    return {
        "title": f"{join_names(selection.names)}: {comparison.metric}",
        "descriptions": [(name, text) for name, text in descriptions.items() if text],
        "made": _format_time(datetime.now(UTC).timestamp() * 1000),
        "began": (_format_time(started[0]), _format_time(started[-1])),
        "where": redact_credentials(store.uri),
        "metric": comparison.metric,
        "better": "lower" if comparison.lower_is_better else "higher",
        "runs": len(runs),
        "summary": summarize_comparison(comparison, labels),
        "notes": comparison.notes,
        "compared": [_table(part, name) for name, part in parts.items()],
        "interval": (intervals.__doc__ or "").partition("\n\n")[2],
        "figures": pictures,
        "links": links,
        "best_runs": [one for part in parts.items() if (one := describe_best_run(part[1], part[0]))],
        "parents": parents,
        "rows": [_row_details(index, label, comparison) for index, label in enumerate(labels)],
        "environment": describe_environment(runs),
        "data": data,
        "missing": [text for text in missing if text],
    }


def _table(comparison: Comparison, data_set: str) -> dict[str, Any]:
    """Return the table of `litlab compare` of the rows on one data set."""
    header, *lines = table_lines(comparison, first=VERDICT_FIRST)
    numbers = [index for index, title in enumerate(header) if title in NUMBERS]
    title = table_title(comparison, data_set) if data_set else ""
    return {"title": title, "header": header, "rows": lines, "numbers": numbers, "remarks": remarks(comparison)}


def _row_details(index: int, label: str, comparison: Comparison) -> dict[str, Any]:
    """Return a row's configuration, runs and commands."""
    row = comparison.rows[index]
    file, missing = "", ""
    if index < MAX_CONFIGS:
        try:
            file = row.runs[0].file("config.yaml").read_text(encoding="utf-8", errors="replace")
        except (UserError, OSError) as error:
            missing = str(error)
    tested = sorted({key for run in row.runs for key in test_metrics(run.metrics, run.tags)})
    metrics = list(dict.fromkeys([comparison.metric, *tested]))
    lines = [
        [run.run_id, run.name, run.seed, *(_format(run.metrics.get(key)) for key in metrics), _format_time(run.started)]
        for run in row.runs
    ]
    return {
        "label": f"{index + 1}. {label}",
        "count": "1 run" if len(row.runs) == 1 else f"{len(row.runs)} runs",
        "first": row.runs[0].run_id,
        "file": file,
        "missing": missing,
        "header": ["run", "name", "seed", *metrics, "started"],
        "runs": lines,
        "numbers": list(range(3, 3 + len(metrics))),
        "repeats": row.repeats,
        "commands": [command_of(run.tags) for run in row.runs],
        "params": [] if file else [(key, value) for key, value in row.configuration.items() if value],
    }


def _format(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _format_time(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
