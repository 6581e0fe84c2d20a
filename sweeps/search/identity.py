"""What makes the trials of a study comparable, and whether a study of another version searches the same."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pipelines.config.identity import NOT_HASHED, changed_values, same_config
from pipelines.config.matching import saved_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.tracking.client import unreachable
from pipelines.tracking.store import Store, StoredRun
from sweeps.search.space import Space, split_keys


def identity(space: Space, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes trials comparable, as a storage returns it: not the budget, the sampler and the pruner."""
    known = {
        "experiment": facts["hash"],
        "space": with_old_class_paths(space.space),
        "metric": space.metric,
        "direction": space.direction,
        "number of seeds": space.seeds,
    }
    stored: dict[str, Any] = json.loads(json.dumps(known))
    return stored


def changed_ranges(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the searched keys whose ranges are not the same in two identities."""
    before = stored.get("space", {})
    return [key for key in {**before, **new["space"]} if before.get(key) != new["space"].get(key)]


def is_same_experiment(
    recorded: Mapping[str, Any] | None, runs: Iterable[StoredRun], space: Space, facts: Mapping[str, Any]
) -> bool:
    """Return whether a study searches this experiment: a key that only one of both has stands at its default.

    Args:
        recorded: The experiment's configuration, if the study has recorded it.
        runs: The runs of the study's trials, for a study of 455f4d7 or earlier, which recorded a hash only.
        space: The search space, which is the same.
        facts: Facts about the experiment, from `sweeps.workers.worker`.
    """
    config = facts["config"]
    if recorded is not None:
        return same_config(recorded, config, facts["defaults"])
    searched = {key for name in space.space for key in split_keys(name)}
    trained, varying = _trial_config(runs, facts["values"], searched)
    if trained is None:
        return False
    changed = changed_values(trained, config, facts["defaults"])
    return all(key in (*NOT_HASHED, *searched) or key.startswith(varying) for key in changed)


def _trial_config(
    runs: Iterable[StoredRun], values: Mapping[str, Any], searched: Collection[str]
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return the first saved configuration with the experiment's own value of each class that is searched.

    If there is none, return another saved configuration, and the beginnings of the keys of these classes: they cannot
    be compared.
    """
    classes = [key for key in searched if any(other.startswith(f"{key}.") for other in values)]
    other = None
    for run in runs:
        is_own = all(run.configuration.get(key) == values[key] for key in classes)
        if (is_own or other is None) and (config := saved_config(run)):
            if is_own:
                return config, ()
            other = config
    return other, tuple(f"{key}." for key in classes)


def trial_runs(store: Store, run_id: str | None) -> Iterator[StoredRun]:
    """Yield the runs of a study's trials; none if the study has no run of its own, or it was deleted.

    Raises:
        UserError: The store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield from store.children(run_id) if run_id else ()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(unreachable(store.uri, error)) from error
