"""Summary of runs that differ only in their seed: metrics with mean and spread, learning curves, a note, tables."""

import math
from collections.abc import Sequence

from pipelines.comparison.formatting import fixed_spec, format_mean_sd, markdown_table
from pipelines.comparison.intervals import Summary, summarize
from pipelines.comparison.row import overlap
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import bounds_of, split_of
from pipelines.tracking.folds import fold_of
from pipelines.tracking.measured import is_measured, test_metrics
from pipelines.tracking.run import Run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.summary_runs import save_note
from pipelines.tracking.tags import FIT_SECONDS, SELECTED, SELECTED_EPOCH

TEST, VALIDATION, SELECTED_OTHERS, EPOCH, SECONDS, REST = range(6)  # kinds of metrics, in order of display


def log_summary(parent: Run, heading: str, runs: Sequence[StoredRun]) -> None:
    """Log summary metrics, learning curves and a note on the summary run.

    The heading is Markdown and the beginning of the note, which the MLflow UI folds after the first few lines.
    """
    parent.log_metrics(summary_metrics(runs), len(runs))
    if runs:
        _save_learning_curves(parent, runs)
    tables = [markdown_table(metrics_table(runs)), "Seed by seed:", markdown_table(seeds_table(runs))] if runs else []
    save_note(parent, "\n\n".join([heading, *tables]) + "\n")


def summary_metrics(runs: Sequence[StoredRun]) -> dict[str, float]:
    """Return mean (KEY), standard deviation (KEY_sd) and 95 % interval (KEY_ci95_low, _high) of each metric, and n."""
    metrics = {"n": float(len(runs))}
    for key, summary in _summaries(runs).items():
        metrics[key] = summary.mean
        if summary.sd is not None and summary.ci95 is not None:
            low, high = summary.ci95
            metrics |= {f"{key}_sd": summary.sd, f"{key}_ci95_low": low, f"{key}_ci95_high": high}
    return metrics


def format_test_metrics(runs: Sequence[StoredRun]) -> str:
    """Format mean and standard deviation of the test metrics in one line; "" without test metrics."""
    tested = _summaries(runs, [TEST]).items()
    return ", ".join(f"{key} {format_mean_sd(of.mean, of.sd, fixed_spec(of.mean))}" for key, of in tested)


def main_mean(runs: Sequence[StoredRun]) -> tuple[str, float] | None:
    """Return the first metric of the test, or else on validation data, with its mean; None if there is none."""
    found = _summaries(runs, [TEST]) or _summaries(runs, [VALIDATION])
    return next(((key, summary.mean) for key, summary in found.items()), None)


def metrics_table(runs: Sequence[StoredRun]) -> list[list[str]]:
    """Return the cells of a header and of one row for each metric."""
    lines = [["metric", "mean", "sd", "n", "95 % interval"]]
    for key, summary in _summaries(runs).items():
        sd = "" if summary.sd is None else _number(summary.sd, summary)
        ends = () if key.startswith((SELECTED_EPOCH, FIT_SECONDS)) else summary.ci95 or ()
        interval = " to ".join(_number(end, summary) for end in ends)
        lines.append([key, _number(summary.mean, summary), sd, str(summary.n), interval])
    return lines


def seeds_table(runs: Sequence[StoredRun]) -> list[list[str]]:
    """Return the cells of a header and of one row for each seed, with its test and validation metrics."""
    shown = _summaries(runs, [TEST, VALIDATION, REST])
    lines = [["seed" if all(fold_of(run.params) is None for run in runs) else "seed, fold", *shown, "run"]]
    for run in runs:
        cells = [_number(run.metrics.get(key, math.nan), summary) for key, summary in shown.items()]
        lines.append([run.repeat, *cells, run.run_id])
    return lines


def _save_learning_curves(parent: Run, runs: Sequence[StoredRun]) -> None:
    from pipelines.comparison.figures import save_figures
    from pipelines.comparison.learning_curves import plot_learning_curves

    try:
        figure = plot_learning_curves({runs[0].experiment: runs})
        save_figures({"learning_curves": figure}, parent.folder / "figures")
    except (ValueError, ArithmeticError, RuntimeError) as error:  # from matplotlib; the runs are not affected
        logger.warning("cannot draw the learning curves: %s", error)


def _summaries(runs: Sequence[StoredRun], shown: Sequence[int] = ()) -> dict[str, Summary]:
    """Summarise each metric, or those of some kinds, over the runs where it is finite."""
    kinds = _kinds(runs)
    keys = sorted((key for key in kinds if not shown or kinds[key] in shown), key=lambda key: (kinds[key], key))
    values = {key: [run.metrics[key] for run in runs if math.isfinite(run.metrics.get(key, math.nan))] for key in keys}
    return {key: summarize(values[key], bounds_of(key, values[key]), overlap(runs)) for key in keys if values[key]}


def _kinds(runs: Sequence[StoredRun]) -> dict[str, int]:
    """Return the metrics to summarise with their kinds; of runs without a test and a selected epoch, all metrics."""
    kinds: dict[str, int] = {}
    for run in runs:
        tested = test_metrics(run.metrics, run.tags)
        for key in run.metrics:
            if key in tested:
                kinds[key] = TEST
            elif key.startswith(f"{SELECTED}/"):
                name = key.removeprefix(f"{SELECTED}/")
                kinds[key] = VALIDATION if split_of(name) in ("val", None) else SELECTED_OTHERS
            elif key.startswith((SELECTED_EPOCH, FIT_SECONDS)):
                kinds[key] = EPOCH if key.startswith(SELECTED_EPOCH) else SECONDS
    if not {TEST, VALIDATION, SELECTED_OTHERS} & set(kinds.values()):
        kinds |= {key: REST for run in runs for key in run.metrics if is_measured(key)}
    return kinds


def _number(value: float, of: Summary) -> str:
    return f"{value:{fixed_spec(of.mean)}}"
