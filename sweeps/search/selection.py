"""Which epoch of a trial counts: the one that is best by the metric of the search.

Studies that an earlier version began keep its rule, so that their trials stay comparable: the metric of the experiment
selects, and of equal epochs the first.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.metric_names import mode_of
from sweeps.search.space import Space, split_keys
from sweeps.search.trial_state import is_own

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

SELECTION = "litlab.selection"  # user attribute of the study: what selects its epochs
BY_METRIC = "metric, then loss"  # its value; missing in studies of earlier versions
MODES = {"minimize": "min", "maximize": "max"}


def begin_selection(study: "OptunaStudy") -> None:
    """Record the rule in a study that has no trial of litlab yet."""
    if SELECTION not in study.user_attrs and not any(is_own(trial) for trial in study.get_trials(deepcopy=False)):
        study.set_user_attr(SELECTION, BY_METRIC)


def selects_by_metric(study: "OptunaStudy") -> bool:
    """Return whether the rule of this version holds for a study."""
    return study.user_attrs.get(SELECTION) == BY_METRIC


def selection_arguments(study: "OptunaStudy", space: Space, facts: Mapping[str, Any]) -> list[str]:
    """Return the arguments that make the trainings select by the metric of the search.

    None, if the experiment does so by itself, the user has chosen a metric, or an earlier version began the study.

    Args:
        study: Optuna's study.
        space: What it searches.
        facts: Facts about the experiment, from `Pool.check`.
    """
    values = facts["values"]
    searched = {key for name in space.space for key in split_keys(name)}
    is_chosen = values.get("monitor") is not None or "monitor" in searched
    if is_chosen or not selects_by_metric(study) or facts["monitor"] == space.metric:
        return []
    mode = MODES[space.direction]
    is_told = mode == mode_of(space.metric) or values.get("mode") is not None
    return ["--monitor", space.metric, *([] if is_told else ["--mode", mode])]
