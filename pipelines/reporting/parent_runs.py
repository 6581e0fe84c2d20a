"""The section of a page about a parent run, such as a study's: what was searched and found."""

from collections.abc import Mapping
from typing import Any

from pipelines.comparison.formatting import fixed_spec, format_mean_sd
from pipelines.reporting.pictures import saved_pictures
from pipelines.reporting.provenance import command_of
from pipelines.runtime.errors import UserError
from pipelines.tracking.measured import is_measured
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    BEST,
    BEST_RUN_TAG,
    BEST_TRIAL_TAG,
    CONFIRMED,
    IMPORTANCE,
    NOTE_TAG,
    PARENT_TAG,
    SPACE_PARAM,
    TRIALS,
    VERDICT_TAG,
)

# By the prefix of their metrics, as sweeps.search.study_run logs them
CONFIGURATIONS = {"": "the best, on fresh seeds", "default/": "the experiment as it is, same seeds"}
_SPACE = f"{SPACE_PARAM}."


def read_parent_run(store: Store, run_id: str) -> dict[str, Any]:
    """Return the variables of a section.

    Returns:
        `title`; `command`; `facts`: kind, status, command and settings; `space`: for each searched key its values, the
        value of the best trial and the importance; `trials`: the number of trials in each state; `header` and rows of
        `confirmed`: test metrics and number of runs; `pictures`; `note`, in Markdown; `verdict`: whether the best is
        better than the default; `missing`: what could not be read, one sentence each.

    Raises:
        UserError: There is no such run.
    """
    run = store.find(run_id)
    metrics, tags = run.metrics, run.tags
    best, missing = _best_params(store, tags.get(BEST_RUN_TAG))
    header, *confirmed = confirmation_table(metrics) or [[]]
    pictures, unread = saved_pictures(run)
    command = command_of(tags)
    bests = {
        f"best single trial's {key}": format_mean_sd(value, spec=fixed_spec(value))
        for key, value in _part(metrics, f"{BEST}/")
    }
    named = {"best single trial": tags.get(BEST_TRIAL_TAG), "its run": tags.get(BEST_RUN_TAG)}
    return {
        "title": run.name or run_id,
        "command": command,
        "facts": [
            *[("kind", tags.get(PARENT_TAG, "sweep")), ("run", run_id), ("status", run.status), ("command", command)],
            *((key, value) for key, value in sorted(run.params.items()) if not key.startswith(_SPACE)),
            *bests.items(),
            *((name, value) for name, value in named.items() if value is not None),
            *([("on fresh seeds, the best is", tags[VERDICT_TAG])] if VERDICT_TAG in tags else []),
        ],
        "space": _space(run.params, best, metrics),
        "trials": [(state, f"{count:.0f}") for state, count in _part(metrics, f"{TRIALS}/")],
        "header": header,
        "confirmed": confirmed,
        "pictures": pictures,
        "note": tags.get(NOTE_TAG, ""),
        "verdict": tags.get(VERDICT_TAG, ""),
        "missing": [*missing, *unread],
    }


def _part(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return the items whose keys have a prefix, without it."""
    return [(key.removeprefix(prefix), value) for key, value in values.items() if key.startswith(prefix)]


def _best_params(store: Store, run_id: str | None) -> tuple[Mapping[str, str], list[str]]:
    """Return the params of the best trial's run; none, and a sentence, if it cannot be read."""
    if not run_id:
        return {}, []
    try:
        return store.find(run_id).params, []
    except UserError as error:
        return {}, [f"the best trial's run {run_id} cannot be read: {error}"]


def _space(
    params: Mapping[str, str], best: Mapping[str, str], metrics: Mapping[str, float]
) -> list[tuple[str, str, str, str]]:
    """Return a line per searched key, the most important key first."""
    weights = dict(_part(metrics, f"{IMPORTANCE}/"))
    searched = sorted(_part(params, _SPACE), key=lambda item: (-weights.get(item[0], 0.0), item[0]))
    return [
        (key, values, best.get(key, ""), f"{weights[key]:.2f}" if key in weights else "") for key, values in searched
    ]


def confirmation_table(metrics: Mapping[str, float], missing: str = "") -> list[list[str]]:
    """Return the results of a study on seeds that its search has not used: test metrics and number of runs.

    Args:
        metrics: Metrics of the study's own run.
        missing: The cell of a metric that a configuration does not have.

    Returns:
        A header, and one row each for the best configuration and the experiment's own; empty if there are none.
    """
    keys = [key for key in sorted(metrics) if is_measured(key) and not key.endswith("_std")]
    rows = [
        [name, *(_mean_sd(metrics, prefix + key, missing) for key in keys), f"{metrics[prefix + CONFIRMED]:.0f}"]
        for prefix, name in CONFIGURATIONS.items()
        if prefix + CONFIRMED in metrics
    ]
    return [["configuration", *keys, "n"], *rows] if rows else []


def _mean_sd(metrics: Mapping[str, float], key: str, missing: str) -> str:
    if key not in metrics:
        return missing
    return format_mean_sd(metrics[key], metrics.get(f"{key}_std"), fixed_spec(metrics[key]))
