"""Tables of a parent run, such as a study's: what was searched and found."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.comparison.formatting import fixed_spec, format_mean_sd
from pipelines.reporting.pictures import Picture, saved_pictures
from pipelines.reporting.provenance import Pairs, command_of
from pipelines.runtime.errors import UserError
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
)

# By the prefix of their metrics, as sweeps.search.study_run logs them
CONFIGURATIONS = {"": "the best, on fresh seeds", "default/": "the experiment as it is, same seeds"}
_SPACE, _IMPORTANCE, _TRIALS, _BEST = f"{SPACE_PARAM}.", f"{IMPORTANCE}/", f"{TRIALS}/", f"{BEST}/"


@dataclass(frozen=True)
class ParentRun:
    """The content of a page about a parent run.

    Attributes:
        title: Its name.
        facts: Kind, status, command and settings.
        space: For each searched key: its values, the value of the best trial, the importance.
        trials: For each state, the number of trials.
        header: Header of `confirmed`.
        confirmed: For each configuration: test metrics, number of runs.
        pictures: Its figures.
        note: Its note, in Markdown.
        missing: What could not be read, one sentence each.
    """

    title: str
    facts: Pairs
    space: list[tuple[str, str, str, str]]
    trials: Pairs
    header: list[str]
    confirmed: list[list[str]]
    pictures: list[Picture]
    note: str
    missing: list[str]


def read_parent_run(store: Store, run_id: str) -> ParentRun:
    """Read a parent run.

    Raises:
        UserError: There is no such run.
    """
    run = store.find(run_id)
    params, metrics, tags = run.params, run.metrics, run.tags
    best, unknown = _best_params(store, tags.get(BEST_RUN_TAG))
    header, *confirmed = confirmation_table(metrics) or [[]]
    pictures, unread = saved_pictures(run)
    facts = [("kind", tags.get(PARENT_TAG, "sweep")), ("run", run_id), ("status", run.status)]
    facts += [("command", command_of(tags))]
    facts += [(key, value) for key, value in sorted(params.items()) if not key.startswith(_SPACE)]
    facts += [
        (f"best {key.removeprefix(_BEST)}", format_mean_sd(value, spec=fixed_spec(value)))
        for key, value in metrics.items()
        if key.startswith(_BEST)
    ]
    facts += [
        (name, tags[tag]) for name, tag in (("best trial", BEST_TRIAL_TAG), ("its run", BEST_RUN_TAG)) if tag in tags
    ]
    return ParentRun(
        title=run.name or run_id,
        facts=facts,
        space=_space(params, best, metrics),
        trials=[(key.removeprefix(_TRIALS), f"{metrics[key]:.0f}") for key in metrics if key.startswith(_TRIALS)],
        header=header,
        confirmed=confirmed,
        pictures=pictures,
        note=tags.get(NOTE_TAG, ""),
        missing=[*unknown, *unread],
    )


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
    keys = [key.removeprefix(_SPACE) for key in params if key.startswith(_SPACE)]
    keys.sort(key=lambda key: (-metrics.get(f"{_IMPORTANCE}{key}", 0.0), key))
    weights = {key: metrics.get(f"{_IMPORTANCE}{key}") for key in keys}
    texts = {key: "" if weight is None else f"{weight:.2f}" for key, weight in weights.items()}
    return [(key, params[f"{_SPACE}{key}"], best.get(key, ""), texts[key]) for key in keys]


def confirmation_table(metrics: Mapping[str, float], missing: str = "") -> list[list[str]]:
    """Return the results of a study on seeds that its search has not used: test metrics and number of runs.

    Args:
        metrics: Metrics of the study's own run.
        missing: The cell of a metric that a configuration does not have.

    Returns:
        A header, and one row each for the best configuration and the experiment's own; empty if there are none.
    """
    keys = [key for key in sorted(metrics) if key.startswith("test/") and not key.endswith("_std")]
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
