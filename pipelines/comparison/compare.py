"""Compare finished runs. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.comparison.looks import count_looks
from pipelines.comparison.power import power_notes
from pipelines.comparison.rows import Comparison, group_and_rank
from pipelines.runtime.metric_names import Mode
from pipelines.tracking.existing import existing_store
from pipelines.tracking.query import find_runs


def compare(
    names: Sequence[str] = (),
    *,
    metric: str | None = None,
    mode: Mode | None = None,
    by: Sequence[str] = (),
    filter_string: str = "",
    baseline: str | None = None,
    min_effect: float | None = None,
    tracking_uri: str | None = None,
) -> Comparison:
    """Compare finished runs. Runs that differ only in the seed are one row; each row is compared with the baseline.

    Args:
        names: Experiments, studies or run ids; the id of a summary run selects the runs that it summarises. Empty
            selects all experiments.
        metric: Metric to rank by, such as "test/acc", "selected/val/loss" or "fit_seconds"; by default the metric of
            the selected study, or else one that most runs have, see `rows.default_metric`.
        mode: "min" if lower values are better, "max" if higher ones are; by default that of the selected study, or else
            what the metric's name tells, see `metric_names.mode_of`.
        by: Keys whose values make the rows, in full or their last parts ("n_train"); by default all keys.
        filter_string: MLflow filter. Keys with dots or slashes do not need backticks.
        baseline: The row that the others are compared with, by its number or by the id or name of one of its runs; by
            default the best row that has more than one run.
        min_effect: Smallest difference of interest. The notes say how many seeds show it, for each row whose difference
            is undecided.
        tracking_uri: MLflow database or server; by default MLFLOW_TRACKING_URI, or else the project's mlflow.db.

    Returns:
        The rows, best first, with mean, standard deviation, 95 % interval and difference to the baseline; by a test
        metric, also with the looks at the test set.

    Raises:
        UserError: A name, a key or the baseline is unknown, the filter or `min_effect` is invalid, or no run has the
            metric.
    """
    selection = find_runs(existing_store(tracking_uri), names, filter_string)
    comparison = with_looks(group_and_rank(selection, metric, list(dict.fromkeys(by)), mode, baseline))
    if min_effect is not None:
        comparison.notes.extend(power_notes(comparison, min_effect))
    return comparison


def with_looks(comparison: Comparison) -> Comparison:
    """Return a comparison with the looks at the test set of each data set.

    Raises:
        UserError: The store cannot be reached.
    """
    if not comparison.parts:
        return replace(comparison, looks=count_looks(comparison.rows, comparison.metric, comparison.selection.runs))
    return replace(comparison, parts={name: with_looks(part) for name, part in comparison.parts.items()})
