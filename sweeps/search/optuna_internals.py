"""The parts of Optuna that litlab uses although they are not documented, tried with 5.0.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- System attribute `fixed_params` of a queued trial: its params, which `Study.enqueue_trial` sets.
- System attributes `dashboard:...` of studies and trials: notes and charts that a person has made in optuna-dashboard.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def has_notes(study: "Study") -> bool:
    """Return whether a person has written notes on a study or a trial, or has made charts, in optuna-dashboard."""
    storage = study._storage
    attributes = set(storage.get_study_system_attrs(storage.get_study_id_from_name(study.study_name)))
    attributes.update(*(trial.system_attrs for trial in study.get_trials(deepcopy=False)))
    return any(key.startswith("dashboard:") for key in attributes)


def queued_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the params that a trial was queued with; empty if it was not queued."""
    return dict(trial.system_attrs.get("fixed_params", {}))
