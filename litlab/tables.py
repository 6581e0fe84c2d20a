"""Results as pandas DataFrames and as HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.runtime.console import SHORT_ID, format_duration
from pipelines.tracking.tags import SELECTED

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.comparison.rows import Comparison
    from pipelines.comparison.run_diff import RunDiff
    from pipelines.tracking.listing import ListedRun
    from pipelines.tracking.store import StoredRun

SHOWN_METRICS = 6
SPREADS = ("_sd", "_ci95_low", "_ci95_high")  # of a run that summarises seeds
_OF_DIFFERENCE = ("difference_n", "difference_paired", "difference_within_noise")
TIMES = ("started", "ended")
RESULTS = ("selected_metric", "selected", "test_metric", "test")
DETAILS = ("seeds", "values", "configurations", "baseline", *_OF_DIFFERENCE)


def history(run: "StoredRun", *, steps: bool) -> "pd.DataFrame":
    """Return a run's metrics with a row for each epoch, or for each step at which something was logged."""
    import pandas as pd

    from pipelines.tracking.history import metrics_of_epochs, metrics_of_steps

    frame = pd.DataFrame.from_dict(metrics_of_steps(run) if steps else metrics_of_epochs(run), orient="index")
    frame.index.name = "step" if steps else "epoch"
    return frame.astype({"epoch": int}) if steps and len(frame) else frame


def listed_runs(runs: "Sequence[ListedRun]", *, details: bool) -> "pd.DataFrame":
    """Return a row for each run, with MLflow's names for params and metrics: `params.model.lr`, `metrics.test/acc`.

    Args:
        runs: The runs.
        details: Whether to return all that is known; otherwise the params that differ, and the metrics without spreads
            and without those that the column `selected` has.
    """
    import pandas as pd

    records = [_flat(run.record()) for run in runs]
    columns = list(dict.fromkeys(key for record in records for key in record))
    frame = pd.DataFrame.from_records(records, columns=columns)
    for column in TIMES if records else ():
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame if details or not records else frame[[*_telling(frame)]]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    params, metrics = record.pop("params"), record.pop("metrics")
    record |= {f"params.{key}": value for key, value in params.items()}
    return record | {f"metrics.{key}": value for key, value in metrics.items()}


def _telling(frame: "pd.DataFrame") -> list[str]:
    """Return the columns that tell the runs apart: who they are, what differs, what they reached, when they ran."""
    params = [name for name in frame if name.startswith("params.") and frame[name].nunique(dropna=False) > 1]
    metrics = {name: 0.0 for name in frame if name.startswith("metrics.")}
    repeated = {f"metrics.{SELECTED}/{metric}" for metric in frame["selected_metric"].dropna()}
    repeated = {name for name in repeated if (frame[name].isna() | (frame[name] == frame["selected"])).all()}
    measured = [name for name in metrics if name not in repeated and not _is_spread(name, metrics)]
    used = [name for name in ("reason", "user") if frame[name].nunique() > 1]
    first = ["name", "experiment", "status", *used]
    return [*first, *params, *RESULTS, *measured, "started", "seconds", "run_id"]


def compared_rows(comparison: "Comparison", *, details: bool) -> "pd.DataFrame":
    """Return the rows of a comparison, best first; `attrs["notes"]` has what the reader should know.

    Args:
        comparison: The rows.
        details: Whether to return all columns that `litlab compare --format csv` writes.
    """
    import pandas as pd

    from pipelines.comparison.export import LOOKS, flat_records
    from pipelines.comparison.formatting import look_note

    frame = pd.DataFrame.from_records(flat_records(comparison), index="row")
    if frame["data_set"].isna().all():
        frame = frame.drop(columns="data_set")
    frame.attrs |= {"metric": comparison.metric, "lower_is_better": comparison.lower_is_better}
    looks = [note for part in comparison.by_data_set().values() for note in look_note(part)]
    frame.attrs["notes"] = [*comparison.notes, *looks]
    left_out = [] if details else [name for name in frame if name in DETAILS or name.startswith(LOOKS)]
    return frame.drop(columns=left_out)


def differences(diff: "RunDiff") -> "pd.DataFrame":
    """Return what differs between two runs: a row for each key, a column for each run."""
    import pandas as pd

    rows = {(section, key): values for section, keys in diff.sections.items() for key, values in keys.items()}
    index = pd.MultiIndex.from_tuples(list(rows), names=["section", "key"])
    return pd.DataFrame(
        list(rows.values()), index=index, columns=[f"{run.run_id[:SHORT_ID]} {run.name}" for run in diff.runs]
    )


def run_html(run: "StoredRun") -> str:
    """Return a small table of a run: what it is, how it ended, and its most important metrics."""
    from pipelines.comparison.run_diff import shown_metrics
    from pipelines.tracking.measured import is_measured

    metrics = shown_metrics(run) or run.metrics
    shown = [name for name in metrics if is_measured(name) or name.startswith(f"{SELECTED}/val")]
    shown = [name for name in shown if not _is_spread(name, metrics)]
    rows = {"experiment": run.experiment, "run": f"{run.name} ({run.run_id})", "status": run.status}
    if run.ended:
        rows["took"] = format_duration((run.ended - run.started) / 1000)
    rows |= {name: _with_spread(name, metrics) for name in shown[:SHOWN_METRICS]}
    return f"<table>{''.join(_row_html(key, value) for key, value in rows.items())}</table>"


def _is_spread(name: str, metrics: Mapping[str, float]) -> bool:
    """Return whether a metric is the spread of another one over seeds."""
    suffix = next((suffix for suffix in SPREADS if name.endswith(suffix)), "")
    return bool(suffix) and name.removesuffix(suffix) in metrics


def _with_spread(name: str, metrics: Mapping[str, float]) -> str:
    spread = f" ± {metrics[f'{name}_sd']:.4f}" if f"{name}_sd" in metrics else ""
    return f"{metrics[name]:.4f}{spread}"


def _row_html(key: str, value: str) -> str:
    style = "style='text-align:left'"
    return f"<tr><th {style}>{html.escape(key)}</th><td {style}>{html.escape(value)}</td></tr>"
