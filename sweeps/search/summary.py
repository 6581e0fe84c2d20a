"""The results of a study as metrics, as table cells and as a Markdown note."""

import statistics
from collections.abc import Mapping

from pipelines.comparison.formatting import markdown_table
from pipelines.reporting.parent_runs import confirmation_table
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIRMED
from sweeps.search.study import Study
from sweeps.search.trial_state import count_states

Confirmed = dict[str, list[StoredRun]]  # "best" and "default": the finished runs on fresh seeds
PREFIXES = {"best": "", "default": "default/"}  # of their metrics


def confirmed_metrics(confirmed: Confirmed) -> dict[str, float]:
    """Return mean and standard deviation of each test metric, of the best configuration and of the experiment's own.

    Those of the experiment's own have the prefix `default/`.
    """
    metrics: dict[str, float] = {}
    for label, runs in confirmed.items():
        prefix = PREFIXES[label]
        for key in sorted({key for run in runs for key in run.metrics if key.startswith("test/")}):
            values = [run.metrics[key] for run in runs if key in run.metrics]
            metrics[prefix + key] = statistics.mean(values)
            if len(values) > 1:
                metrics[f"{prefix}{key}_std"] = statistics.stdev(values)
        metrics[f"{prefix}{CONFIRMED}"] = len(runs)
    return metrics


def confirmed_lines(confirmed: Confirmed) -> list[str]:
    """Return the result of the confirmation, one line per configuration."""
    if not confirmed:
        return []
    (_, *keys, _), *rows = confirmation_table(confirmed_metrics(confirmed), missing="none")
    lines = []
    for label, *cells, n in rows:
        shown = "  ".join(f"{key} {cell}" for key, cell in zip(keys, cells, strict=True)) or "none finished"
        lines.append(f"{label}: {shown}  (n = {n})")
    return lines


def study_note(study: Study, confirmed: Confirmed, importances: Mapping[str, float]) -> str:
    """Return the study's note: progress, best value, confirmation, and the best trial's params with importances."""
    counts, best = count_states(study.trials()), study.best()
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    progress = f"{sum(counts.values())} of {study.space.total} trials ({states or 'none has ended'})"
    if best is None:
        return f"{progress}.\n\n{study.space.description}".rstrip() + "\n"
    parts = [
        f"{progress}. Best {study.space.metric} {best.value:.4f}, trial {best.trial}: "
        f"the best of {counts['complete']}, so partly chance; the runs on fresh seeds are a better estimate."
    ]
    if any(confirmed.values()):
        parts.append(markdown_table(confirmation_table(confirmed_metrics(confirmed), missing="none")))
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in best.params.items()}
    table = [["key", "value", "importance"]]
    table += [[key, text, f"{importances.get(key, 0.0):.2f}"] for key, text in shown.items()]
    columns = slice(None if importances else 2)
    parts += [f"Trial {best.trial}:", markdown_table([row[columns] for row in table]), study.space.description]
    return "\n\n".join(filter(None, parts)) + "\n"
