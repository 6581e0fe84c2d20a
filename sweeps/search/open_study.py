"""Open a study: create it, continue it if it searches the same, perhaps for another version of litlab, or refuse."""

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.config.identity import NOT_HASHED, changed_values, complete_config, same_config
from pipelines.config.matching import saved_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.tracking.client import unreachable
from pipelines.tracking.store import Store, StoredRun
from sweeps.search.ownership import check_adoptable, has_foreign_parts, is_own_study
from sweeps.search.samplers import make_pruner, make_sampler
from sweeps.search.selection import begin_selection
from sweeps.search.space import Space, split_keys
from sweeps.search.study import PARENT, PREVIOUS_RUNS, Study, previous_runs
from sweeps.search.trial_state import counted_trials

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage

# User attributes of the study
IDENTITY = "litlab.space"
CONFIG = "litlab.config"  # the experiment's configuration
TOTAL = "litlab.total"
GRID = "litlab.grid"  # whether each point counts once


def open_study(
    storage: "BaseStorage",
    name: str,
    space: Space,
    facts: Mapping[str, Any],
    controller: str,
    store: Store | None = None,
) -> Study:
    """Create a study, or continue it.

    A study of litlab with another space is replaced if no trial counts and all that it has is litlab's. A study of
    another program is adopted if all that it has are user attributes and queued points of the space.

    Args:
        storage: Where it is stored.
        name: Its name.
        space: What it searches.
        facts: Facts about the experiment, from `Pool.check`.
        controller: Name of this controller.
        store: The tracking store, which has the configurations of studies of earlier versions.

    Raises:
        UserError: The study exists with another space or is another program's, or the sampler or pruner is unknown.
    """
    import optuna

    def create() -> "OptunaStudy":
        sampler, pruner = make_sampler(space.sampler, 0), make_pruner(space.pruner, facts["max_epochs"])
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction=space.direction,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )

    study, given = create(), space
    if is_adopted := not is_own_study(study):
        check_adoptable(study, space, facts["values"])
    elif given.direction_by_name:  # an earlier version maximised any metric, unless the space said otherwise
        space = dataclasses.replace(given, direction=study.direction.name.lower())  # type: ignore[arg-type]
    new, conflict = (identity(space, facts), "") if is_adopted else _match(study, space, facts, store)
    if conflict:
        trials = study.get_trials(deepcopy=False)
        if counted_trials(trials, is_grid=False) or has_foreign_parts(study):
            raise UserError(conflict)
        previous = [*previous_runs(study), study.user_attrs.get(PARENT)]
        optuna.delete_study(study_name=name, storage=storage)  # nothing is lost
        space = given
        study, new = create(), identity(space, facts)
        study.set_user_attr(PREVIOUS_RUNS, [run_id for run_id in previous if run_id])
    config = study.user_attrs.get(CONFIG, facts["config"])
    begin_selection(study)
    study.set_user_attr(IDENTITY, new)
    # Keys that an earlier version did not have are recorded at their current defaults.
    study.set_user_attr(CONFIG, complete_config(config, facts["defaults"]))
    study.set_user_attr(TOTAL, space.total)
    study.set_user_attr(GRID, space.is_grid)
    study.set_metric_names([space.metric])  # for dashboards
    study.sampler = make_sampler(space.sampler, len(study.get_trials(deepcopy=False)))  # does not repeat earlier draws
    return Study(study, storage, space, controller, facts["values"])


def _match(
    study: "OptunaStudy", space: Space, facts: Mapping[str, Any], store: Store | None
) -> tuple[dict[str, Any], str]:
    """Return the identity of the space, with the hash that the study's first version computed, and why it conflicts.

    The reason is "" if the study has the same space, metric, direction, number of seeds and experiment.

    Raises:
        UserError: The tracking store cannot be reached.
    """
    new = identity(space, facts)
    stored = study.user_attrs.get(IDENTITY, {} if study.get_trials(deepcopy=False) else new)
    stored = with_old_class_paths({**stored, "direction": study.direction.name.lower()})
    if "experiment" in stored and stored["experiment"] != new["experiment"]:
        runs = trial_runs(store, study.user_attrs.get(PARENT)) if store else ()
        if is_same_experiment(study.user_attrs.get(CONFIG), runs, space, facts):
            new["experiment"] = stored["experiment"]
    different = [key for key in new if new[key] != stored.get(key)]
    if not different:
        return new, ""
    before, now = stored.get("space", {}), new["space"]
    ranges = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    which = f" ({'; '.join(ranges)})" if ranges else ""
    conflict = f"study {study.study_name} already exists with another {' and '.join(different)}{which}"
    return new, f"{conflict}: choose another name with --study"


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


def is_same_experiment(
    recorded: Mapping[str, Any] | None, runs: Iterable[StoredRun], space: Space, facts: Mapping[str, Any]
) -> bool:
    """Return whether a study searches this experiment: keys that only one of them has must be at their defaults.

    Studies of 455f4d7 and earlier recorded only a hash of the configuration: the runs of their trials are compared.
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
    """Yield the runs of a study's trials; none if the study's parent run is missing or deleted.

    Raises:
        UserError: The store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield from store.children(run_id) if run_id else ()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(unreachable(store.uri, error)) from error
