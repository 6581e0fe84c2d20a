"""Look at runs: `runs`, `compare` and `diff`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from litlab.run import Run, run_id_of, uri_of
from pipelines.runtime.metric_names import Mode

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["running", "finished", "failed", "killed"]


def runs(
    *names: str,
    status: Status | None = None,
    filter: str = "",
    tags: Mapping[str, str] | None = None,
    since: str | None = None,
    user: str | None = None,
    last: int | None = None,
    details: bool = False,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """Return runs of any status, newest first, one a row: what they are, the params that differ, their metrics.

    Args:
        names: Experiments and studies; without one, runs of all, but not those that belong to a sweep or to seeds.
        status: Only these.
        filter: MLflow's filter, such as "metrics.test/acc > 0.9"; keys do not need backticks.
        tags: Only runs with these tags.
        since: Age of the oldest, such as "7d", or a date.
        user: Who started them.
        last: At most so many; default: all.
        details: Whether to return all params, the spreads of metrics over seeds, and who started the run.
        tracking_uri: Where they are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Raises:
        UserError: A name is unknown, or a condition is invalid.
    """
    from litlab.tables import listed_runs
    from pipelines.tracking.listing import list_runs

    conditions = {"status": status, "filter_string": filter, "tags": tags, "since": since, "user": user, "last": last}
    return listed_runs(list_runs(names, tracking_uri=tracking_uri, **conditions), details=details)  # type: ignore[arg-type]


def compare(
    *names: str | Run,
    metric: str | None = None,
    mode: Mode | None = None,
    by: str | Sequence[str] = (),
    filter: str = "",
    baseline: str | Run | None = None,
    min_effect: float | None = None,
    details: bool = False,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """Compare finished runs: a row for each configuration, best first, with its mean and interval over the seeds.

    Args:
        names: Experiments, studies and runs; without one, all.
        metric: Metric that ranks the rows, such as "test/acc", "selected/val/loss" or "fit_seconds".
        mode: Whether its lower ("min") or higher ("max") values are better; default: what its name tells.
        by: Keys whose values make the rows, such as "n_train"; default: all.
        filter: MLflow's filter, such as "params.data.n_train >= 1000".
        baseline: The row that others are compared with: its number or one of its runs; default: the best with n > 1.
        min_effect: Smallest difference of interest: the notes say how many seeds show it, for each row whose difference
            is undecided.
        details: Whether to return all columns of `litlab compare --format csv`, such as `seeds` and `values`.
        tracking_uri: Where the runs are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Returns:
        `params.KEY` where the rows differ, `mean`, `sd`, `n`, the ends of the 95 % interval, the difference to the
        baseline with its interval, the `verdict`, and `runs`; the metric and notes for the reader in `attrs`.

    Raises:
        UserError: A name, a key or the baseline is unknown, the filter is invalid, or no run has the metric.
    """
    from litlab.tables import compared_rows
    from pipelines.comparison.compare import compare as compare_runs

    uri = next((found for name in names if (found := uri_of(name, tracking_uri))), tracking_uri)
    comparison = compare_runs(
        [name.id if isinstance(name, Run) else name for name in names],
        metric=metric,
        mode=mode,
        by=[by] if isinstance(by, str) else by,
        filter_string=filter,
        baseline=baseline.id if isinstance(baseline, Run) else baseline,
        min_effect=min_effect,
        tracking_uri=uri,
    )
    return compared_rows(comparison, details=details)


def diff(one: str | Run, other: str | Run, *, tracking_uri: str | None = None) -> "pd.DataFrame":
    """Return what differs between two runs: configuration, data, code, versions, machine and metrics.

    Args:
        one: A run, or what names it.
        other: Another one of the same store.
        tracking_uri: Where they are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Raises:
        UserError: There is no such run.
    """
    from litlab.tables import differences
    from pipelines.comparison.run_diff import diff_runs

    uri = uri_of(other, uri_of(one, tracking_uri))
    return differences(diff_runs(run_id_of(one, uri), run_id_of(other, uri), tracking_uri=uri))
