"""What in a study is litlab's own, and what is another program's or a person's, which litlab does not delete."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from sweeps.search.optuna_internals import has_notes
from sweeps.search.ranges import point_error
from sweeps.search.space import Space
from sweeps.search.trial_state import is_own, trial_params

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

PREFIX = "litlab."  # of all user attributes that litlab, also an earlier version, gives a study


def is_own_study(study: "Study") -> bool:
    """Return whether litlab, perhaps an earlier version, has created or adopted a study."""
    return any(key.startswith(PREFIX) for key in study.user_attrs)


def has_foreign_parts(study: "Study") -> bool:
    """Return whether a study of litlab has trials, user attributes or notes that are not litlab's."""
    others = [trial for trial in study.get_trials(deepcopy=False) if not is_own(trial)]
    attributes = [key for key in study.user_attrs if not key.startswith(PREFIX)]
    return bool(others or attributes or has_notes(study))


def check_adoptable(study: "Study", space: Space, values: Mapping[str, Any]) -> None:
    """Refuse a study of another program, unless it has the space's direction and only queued points of the space.

    Args:
        study: The study.
        space: The space.
        values: The experiment's own value of each key.

    Raises:
        UserError: The message says why, and how to choose another name.
    """
    distributions = space.distributions(values)
    directions = [direction.name.lower() for direction in study.directions]
    trials = study.get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state.name != "WAITING"]
    errors = ((trial.number, point_error(trial_params(trial), distributions)) for trial in trials)
    reason = ""
    if directions != [space.direction]:
        reason = f"it has the direction {' and '.join(directions)}, not {space.direction}"
    elif begun:
        reason = f"it has {len(begun)} trials that are not queued but {begun[0].state.name}"
    elif misfit := next(((number, error) for number, error in errors if error), None):
        reason = f"its queued trial {misfit[0]} is not in the space: {misfit[1]}"
    if reason:
        raise UserError(
            f"study {study.study_name} already exists and was not created by litlab: {reason}. "
            "Choose another name with --study OTHER"
        )


def check_distributions(study: "Study", distributions: "Mapping[str, BaseDistribution]") -> None:
    """Refuse a study to which another program has added a trial with other choices, as Optuna then draws no more.

    Raises:
        UserError: The message names the trial and the key, and says how to choose another name.
    """
    from optuna.distributions import check_distribution_compatibility

    for trial in study.get_trials(deepcopy=False):
        for key in trial.distributions.keys() & distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[key], distributions[key])
            except ValueError as error:
                raise UserError(
                    f"study {study.study_name}: trial {trial.number}, which another program has added, has other "
                    f"values of {key}. Optuna takes one set of choices per study: choose another with --study OTHER"
                ) from error
