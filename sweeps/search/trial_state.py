"""Optuna's trials as litlab counts them: their states, values and configurations.

A trial is COMPLETE, PRUNED or FAIL by its own result, or FAIL because it was interrupted: its controller stopped or
died. Interrupted trials do not count, and their configurations are queued again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.search.optuna_internals import queued_params

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# User attributes of trials
INTERRUPTED = "interrupted"  # the reason; a trial with this attribute does not count
CONTROLLER = "controller"
SEED = "seed "  # prefix: `seed 0` is the value of seed 0
RUNS, REASON, SECONDS, SAME_AS = "runs", "reason", "seconds", "same as"


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


def is_counted(trial: "FrozenTrial") -> bool:
    """Return whether a trial counts towards the total: it has ended, and was not interrupted."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "FAIL" and INTERRUPTED not in trial.user_attrs
    )


def best_trial(trials: "Iterable[FrozenTrial]", direction: str) -> BestTrial | None:
    """Return the best complete trial; of equals the first, which Optuna's databases do not guarantee."""
    values = [(trial.value, trial) for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    if not values:
        return None
    sign = 1 if direction == "maximize" else -1
    value, trial = max(values, key=lambda item: sign * item[0])
    return BestTrial(
        **describe_trial(trial), value=value, seeds=seed_values(trial), runs=trial.user_attrs.get(RUNS, [])
    )


def describe_trial(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the attributes of `TrialStatus`."""
    return {"trial": trial.number, "params": trial.params, "epochs": max(trial.intermediate_values, default=0)}


def count_states(trials: "Iterable[FrozenTrial]") -> dict[str, int]:
    """Return how many trials are complete, pruned and failed; interrupted ones are not included."""
    states = [trial.state.name for trial in trials if is_counted(trial)]
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    return {name: states.count(state) for name, state in names.items()}


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
