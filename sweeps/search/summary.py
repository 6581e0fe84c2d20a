"""The results of a study as metrics, as table cells and as a Markdown note."""

import statistics
from collections.abc import Mapping
from typing import Any

from pipelines.comparison.formatting import fixed_spec, format_mean_sd, markdown_table
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIRMED
from sweeps.search.study import Study
from sweeps.search.trial_state import count_states

LABELS = {"best": "the best, on fresh seeds", "default": "the experiment as it is, same seeds"}
Confirmed = dict[str, list[StoredRun]]  # "best" and "default": the finished runs on fresh seeds
TEST = "test/"


def confirmed_metrics(confirmed: Confirmed) -> dict[str, float]:
    """Return mean and standard deviation of each test metric, of the best configuration and of the experiment's own.

    Those of the experiment's own have the prefix `default/`.
    """
    metrics: dict[str, float] = {}
    for label, runs in confirmed.items():
        prefix = _prefix(label)
        for key in sorted({key for run in runs for key in run.metrics if key.startswith(TEST)}):
            values = [run.metrics[key] for run in runs if key in run.metrics]
            metrics[prefix + key] = statistics.mean(values)
            if len(values) > 1:
                metrics[f"{prefix}{key}_std"] = statistics.stdev(values)
        metrics[f"{prefix}{CONFIRMED}"] = len(runs)
    return metrics


def confirmed_lines(confirmed: Confirmed) -> list[str]:
    """Return the result of the confirmation, one line per configuration."""
    header, *rows = _confirmed_table(confirmed)
    keys = header[1:-1]
    cells = [[f"{key} {cell}" for key, cell in zip(keys, row[1:-1], strict=True)] for row in rows]
    return [
        f"{row[0]}: {'  '.join(shown) or 'none finished'}  (n = {row[-1]})"
        for row, shown in zip(rows, cells, strict=True)
    ]


def study_note(study: Study, confirmed: Confirmed, importances: Mapping[str, float]) -> str:
    """Return the study's note: progress, best value, confirmation, and the best trial's params with importances."""
    counts, best = count_states(study.trials()), study.best()
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    progress = f"{sum(counts.values())} of {study.space.total} trials ({states or 'none has ended'})"
    if best is None or best.value is None:
        return f"{progress}.\n\n{study.space.description}".rstrip() + "\n"
    parts = [
        f"{progress}. Best {study.space.metric} {best.value:.4f}, trial {best.number}: "
        f"the best of {counts['complete']}, so partly luck; fresh seeds say more."
    ]
    if any(confirmed.values()):
        parts.append(markdown_table(_confirmed_table(confirmed)))
    parts += [f"Trial {best.number}:", markdown_table(_params_table(best.params, importances)), study.space.description]
    return "\n\n".join(filter(None, parts)) + "\n"


def _params_table(params: Mapping[str, Any], importances: Mapping[str, float]) -> list[list[str]]:
    """Return a header, and one row per key."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in params.items()}
    if not importances:
        return [["key", "value"], *([key, value] for key, value in shown.items())]
    rows = [[key, value, f"{importances.get(key, 0.0):.2f}"] for key, value in shown.items()]
    return [["key", "value", "importance"], *rows]


def _confirmed_table(confirmed: Confirmed) -> list[list[str]]:
    """Return a header, and one row per configuration: label, test metrics, number of runs."""
    metrics = confirmed_metrics(confirmed)
    keys = _test_keys(metrics)
    rows = [
        [LABELS[label], *(_cell(metrics, _prefix(label) + key) for key in keys), str(len(runs))]
        for label, runs in confirmed.items()
    ]
    return [["configuration", *keys, "n"], *rows]


def _prefix(label: str) -> str:
    return "" if label == "best" else f"{label}/"


def _test_keys(metrics: Mapping[str, float]) -> list[str]:
    return sorted(key for key in metrics if key.startswith(TEST) and not key.endswith("_std"))


def _cell(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return "none"
    return format_mean_sd(metrics[key], metrics.get(f"{key}_std"), fixed_spec(metrics[key]))
