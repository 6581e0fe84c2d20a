"""The parts of Optuna that litlab uses although they are not documented, tried with 5.0.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- System attribute `fixed_params` of a queued trial: its params, which `Study.enqueue_trial` sets.
- Table `study_directions`: the only row of a study that Optuna itself never locks. Only MySQL needs it; PostgreSQL has
  locks that belong to no row.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LOCK_ROW = "select study_id from study_directions where study_id = :study for update"


def queued_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the params that a trial was queued with; empty if it was not queued."""
    return dict(trial.system_attrs.get("fixed_params", {}))
