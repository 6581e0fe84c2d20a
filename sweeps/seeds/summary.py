"""What runs that differ in their seed have in common: metrics with mean and spread, a figure, a note, tables."""

import math
import sys
from collections.abc import Sequence

from pipelines.comparison.formatting import fixed_spec, format_mean_sd, markdown_table
from pipelines.comparison.intervals import Summary, summarize
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import FIT_SECONDS, NOTE_TAG, SELECTED_EPOCH

NOTE_LENGTH = 5000  # MLflow takes 8000
MEASURED = ("test/", "selected/val/", "selected/", SELECTED_EPOCH, FIT_SECONDS)


def log_summary(store: Store, parent: Run, heading: str, runs: Sequence[StoredRun]) -> None:
    """Log what finished runs have in common on the run that stands for them.

    Args:
        store: Where they are.
        parent: The run that stands for them.
        heading: The note's first lines, in Markdown; the MLflow UI folds what comes after the first few.
        runs: In the order of their seeds.
    """
    parent.log_metrics(headline(runs), len(runs))
    if runs:
        _draw(store, parent, runs)
    tables = [markdown_table(metrics_table(runs)), "Seed by seed:", markdown_table(seeds_table(runs))] if runs else []
    note = "\n\n".join([heading, *tables]) + "\n"
    (parent.folder / "note.md").write_text(note)
    parent.set_tags({NOTE_TAG: note[:NOTE_LENGTH].rpartition("\n")[0]})  # whole lines; the file has all


def headline(runs: Sequence[StoredRun]) -> dict[str, float]:
    """Mean, standard deviation and both ends of the 95 % interval of each metric, and the number of runs as n."""
    metrics = {"n": float(len(runs))}
    for key, summary in _summaries(runs).items():
        metrics[key] = summary.mean
        if summary.sd is not None and summary.ci95 is not None:
            low, high = summary.ci95
            metrics |= {f"{key}_sd": summary.sd, f"{key}_ci95_low": low, f"{key}_ci95_high": high}
    return metrics


def in_short(runs: Sequence[StoredRun]) -> str:
    """The test metrics, mean and standard deviation; "" if nothing was tested."""
    tested = {key: summary for key, summary in _summaries(runs).items() if key.startswith("test/")}
    return ", ".join(f"{key} {format_mean_sd(of.mean, of.sd, fixed_spec(of.mean))}" for key, of in tested.items())


def metrics_table(runs: Sequence[StoredRun]) -> list[list[str]]:
    """A line for each metric, below the header."""
    lines = [["metric", "mean", "sd", "n", "95 % interval"]]
    for key, summary in _summaries(runs).items():
        sd = "" if summary.sd is None else _number(summary.sd, summary)
        interval = "" if summary.ci95 is None else " to ".join(_number(end, summary) for end in summary.ci95)
        lines.append([key, _number(summary.mean, summary), sd, str(summary.n), interval])
    return lines


def seeds_table(runs: Sequence[StoredRun]) -> list[list[str]]:
    """A line for each seed, below the header."""
    shown = {key: summary for key, summary in _summaries(runs).items() if key.startswith(MEASURED[:2])}
    lines = [["seed", *shown, "run"]]
    for run in runs:
        cells = [_number(run.metrics.get(key, math.nan), summary) for key, summary in shown.items()]
        lines.append([run.seed, *cells, run.run_id])
    return lines


def _draw(store: Store, parent: Run, runs: Sequence[StoredRun]) -> None:
    from pipelines.comparison.figures import save_figures
    from pipelines.comparison.learning_curves import plot_learning_curves

    try:
        figure = plot_learning_curves({runs[0].experiment: runs})
        save_figures({"learning_curves": figure}, parent.folder / "figures")
    except (ValueError, ArithmeticError, RuntimeError) as error:  # of matplotlib; the runs have ended well
        print(f"litlab: the learning curves cannot be drawn: {error}", file=sys.stderr)


def _summaries(runs: Sequence[StoredRun]) -> dict[str, Summary]:
    """Of what was tested and selected, over the runs where it is finite."""
    keys = {key for run in runs for key in run.metrics if key.startswith(MEASURED)}
    values = {key: [run.metrics[key] for run in runs if math.isfinite(run.metrics.get(key, math.nan))] for key in keys}
    return {key: summarize(values[key]) for key in sorted(keys, key=_place) if values[key]}


def _place(key: str) -> tuple[int, str]:
    return next(place for place, start in enumerate(MEASURED) if key.startswith(start)), key


def _number(value: float, of: Summary) -> str:
    return f"{value:{fixed_spec(of.mean)}}"
