"""Optuna's trials as litlab counts them: their states, values and configurations.

A trial counts towards the total if litlab has trained it, and it is COMPLETE, PRUNED or FAIL by its own result.

- A trial that was interrupted, because its controller stopped or died or its node was lost, does not count; its point
  is queued again.
- A queued point that is not in the space fails without training, and does not count.
- A failed trial that `--retry_failed` has queued again does not count; the new trial counts in its place.
- Of several trials of one point of a grid, one counts.
- A trial that another program ran or added to the study does not count, and is not the best.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.search.optuna_internals import queued_params

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# User attributes of trials
INTERRUPTED = "interrupted"  # the reason; a trial with this attribute does not count
INVALID = "invalid"  # the reason; a queued point that is not in the space
CONTROLLER = "controller"  # who runs or queued it; the mark of litlab's trials, also in studies of earlier versions
RETRY = "retry of"  # number of the failed trial in whose place it counts
LOSSES = "losses"  # how often its configuration was lost with the node that trained it
SEED = "seed "  # prefix: `seed 0` is the value of seed 0
RUNS, REASON, SECONDS, SAME_AS = "runs", "reason", "seconds", "same as"
_RESULTS = (INTERRUPTED, INVALID, CONTROLLER, RUNS, REASON, SECONDS, SAME_AS)
_STATES = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class TrialStatus:
    """A trial: its number, its params, and how many epochs have been reported."""

    trial: int
    params: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class BestTrial(TrialStatus):
    """The best complete trial: its value, the values of its seeds, and the ids of its runs."""

    value: float
    seeds: list[float]
    runs: list[str]


def is_own(trial: "FrozenTrial") -> bool:
    """Return whether litlab runs or has run a trial, or has queued it itself."""
    return CONTROLLER in trial.user_attrs


def counted_trials(trials: "Sequence[FrozenTrial]", *, is_grid: bool) -> "list[FrozenTrial]":
    """Return the trials that count towards the total.

    Args:
        trials: All trials of a study.
        is_grid: Whether the study tries each point once: of equal trials, the first with the best state counts.
    """
    retried = retried_numbers(trials)
    counted = [trial for trial in trials if has_result(trial) and trial.number not in retried]
    return one_per_point(counted, lambda trial: params_key(trial.params)) if is_grid else counted


def one_per_point(trials: "Sequence[FrozenTrial]", key: "Callable[[FrozenTrial], str]") -> "list[FrozenTrial]":
    """Return the first trial with the best state of each point, by number; `key` is equal for trials of one point."""
    by_point: dict[str, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: _STATES.index(trial.state.name)):
        by_point.setdefault(key(trial), trial)
    return sorted(by_point.values(), key=lambda trial: trial.number)


def retried_numbers(trials: "Iterable[FrozenTrial]") -> set[int]:
    """Return the numbers of failed trials in whose place one of these trials counts or will count."""
    retries = (trial for trial in trials if RETRY in trial.user_attrs and INTERRUPTED not in trial.user_attrs)
    return {trial.user_attrs[RETRY] for trial in retries}


def has_result(trial: "FrozenTrial") -> bool:
    """Return whether a trial is litlab's and has ended by its own result."""
    if not is_own(trial) or INVALID in trial.user_attrs:
        return False
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "FAIL" and INTERRUPTED not in trial.user_attrs
    )


def best_trial(trials: "Iterable[FrozenTrial]", direction: str) -> BestTrial | None:
    """Return litlab's best complete trial; of equals the first, which Optuna's databases do not guarantee."""
    complete = (trial for trial in trials if trial.state.name == "COMPLETE" and is_own(trial))
    values = [(trial.value, trial) for trial in complete if trial.value is not None]
    if not values:
        return None
    sign = 1 if direction == "maximize" else -1
    return describe_best(max(values, key=lambda item: sign * item[0])[1])


def describe_best(trial: "FrozenTrial") -> BestTrial:
    """Return a complete trial as the best one."""
    assert trial.value is not None
    runs = trial.user_attrs.get(RUNS, [])
    return BestTrial(**describe_trial(trial), value=trial.value, seeds=seed_values(trial), runs=runs)


def describe_trial(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the attributes of `TrialStatus`."""
    return {"trial": trial.number, "params": trial.params, "epochs": max(trial.intermediate_values, default=0)}


def count_states(counted: "Iterable[FrozenTrial]") -> dict[str, int]:
    """Return how many of the trials that count are complete, pruned and failed."""
    states = [trial.state.name for trial in counted]
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    return {name: states.count(state) for name, state in names.items()}


def is_result(attribute: str) -> bool:
    """Return whether a trial's user attribute is a result or a state, which another trial of its point has not."""
    return attribute in _RESULTS or attribute.startswith(SEED)


def seed_values(trial: "FrozenTrial") -> list[float]:
    """Return the values of a trial's seeds that have finished."""
    return [value for key, value in trial.user_attrs.items() if key.startswith(SEED)]


def params_key(params: Mapping[str, Any]) -> str:
    """Return text that is equal for equal configurations; 0.1 + 0.2 equals 0.3, and 1 differs from 1.0 and true."""
    rounded = {key: float(f"{value:.12g}") if isinstance(value, float) else value for key, value in params.items()}
    return json.dumps(rounded, sort_keys=True)


def trial_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return a trial's params as far as they are known, also those of a queued trial."""
    return {**queued_params(trial), **trial.params}
