"""The section of a page about the best run on a data set: its confusion matrix and its mistakes."""

from typing import Any

from pipelines.comparison.rows import Comparison
from pipelines.reporting.pictures import saved_pictures

MAX_ROWS = 10  # whose runs are asked for figures
FIGURES = ("confusion_matrix", "confidently_wrong")  # that `litlab fit` saves of a classifier


def describe_best_run(comparison: Comparison, data_set: str) -> dict[str, Any] | None:
    """Return `title`, `run`, `text` and `pictures` of the best run that was tested; None if none saved such figures.

    It is of the best row whose best run saved them; the trials of a search are not tested.

    Args:
        comparison: The rows on one data set.
        data_set: Its name; "" if there is only one.
    """
    for row in comparison.rows[:MAX_ROWS]:
        runs = [run for run in row.runs if comparison.metric in run.metrics]
        best = (min if comparison.lower_is_better else max)(runs, key=lambda run: run.metrics[comparison.metric])
        pictures, _ = saved_pictures(best, FIGURES)
        if not pictures:
            continue
        count = f", the best of {len(runs)} in row {row.number}" if len(runs) > 1 else f", row {row.number}"
        value = f"{comparison.metric} {best.metrics[comparison.metric]:.4f}"
        title = ("Best run" if row.rank == 1 else "Best tested run") + (f" on {data_set}" if data_set else "")
        return {"title": title, "run": best.run_id, "text": f"seed {best.seed}{count}: {value}", "pictures": pictures}
    return None
