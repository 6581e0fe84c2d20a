"""What a run's metrics were measured on: which are of its test, and which of the epoch that it selected."""

import json
from collections.abc import Mapping

from pipelines.runtime.metric_names import split_of
from pipelines.tracking.tags import (
    BEST,
    CONFIRMED,
    DEFAULT,
    FIT_SECONDS,
    IMPORTANCE,
    LEARNING_RATE,
    MONITOR_TAG,
    PARAMETERS,
    SELECTED,
    SELECTED_EPOCH,
    SELECTED_STEP,
    SYSTEM,
    TEST_METRICS_TAG,
    TRIALS,
)

NOT_OF_MODELS = (SELECTED, DEFAULT, BEST, IMPORTANCE, TRIALS, SYSTEM)
"""Prefixes: metrics of other runs, taken from other metrics, or of the machine."""
ABOUT_RUNS = (SELECTED_EPOCH, SELECTED_STEP, FIT_SECONDS, PARAMETERS, CONFIRMED)


def is_measured(metric: str) -> bool:
    """Return whether a metric is one that a module or a callback logged; learning rates are not."""
    is_other = metric in ABOUT_RUNS or metric.startswith(LEARNING_RATE)
    return not is_other and metric.partition("/")[0] not in NOT_OF_MODELS


def test_metrics(metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, float]:
    """Return the metrics of a run's test, sorted: by their names, or by a tag if their names do not say so."""
    try:
        others = set(json.loads(tags.get(TEST_METRICS_TAG, "[]")))
    except (ValueError, TypeError):  # not written by litlab
        others = set()
    names = [key for key in sorted(metrics) if is_measured(key) and (split_of(key) == "test" or key in others)]
    return {key: metrics[key] for key in names}


def at_selected_epoch(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a run's metrics with the value of the selected epoch where MLflow has the latest one."""
    prefix = f"{SELECTED}/"
    selected = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    return {**metrics, **selected}


def metrics_after_training(metrics: Mapping[str, float]) -> list[str]:
    """Return the metrics of the selected epoch that the test logged, whatever their names: after the selection.

    Args:
        metrics: All metrics of the selected epoch. If none was selected, names tell.
    """
    selected = any(key.startswith(f"{SELECTED}/") for key in metrics)
    possible = ("test", None) if selected else ("test",)
    names = [key for key in metrics if is_measured(key) and split_of(key) in possible]
    return [key for key in names if f"{SELECTED}/{key}" not in metrics]


def selected_metric(metrics: Mapping[str, float], tags: Mapping[str, str]) -> str | None:
    """Return the metric of the selected epoch that selected it, such as "selected/val/acc"; None if there is none.

    A tag records the metric, unless it is the usual one of litlab's own modules: accuracy, or loss without one.
    """
    recorded = f"{SELECTED}/{tags.get(MONITOR_TAG)}"
    candidates = [recorded, f"{SELECTED}/val/acc", f"{SELECTED}/val/loss", *sorted(metrics)]
    return next((key for key in candidates if key in metrics and key.startswith(f"{SELECTED}/")), None)
