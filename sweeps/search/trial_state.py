"""Optuna's trials as litlab counts them: their states, values and configurations.

A trial is COMPLETE, PRUNED or FAIL by its own result, or FAIL because it was interrupted: its controller stopped or
died. Interrupted trials do not count, and their configurations are queued again.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# User attributes of trials
INTERRUPTED = "interrupted"  # the reason; a trial with this attribute does not count
CONTROLLER = "controller"
SEED = "seed "  # prefix: `seed 0` is the value of seed 0
RUNS, REASON, SECONDS, SAME_AS = "runs", "reason", "seconds", "same as"


def is_counted(trial: "FrozenTrial") -> bool:
    """Return whether a trial counts towards the total: it has ended, and was not interrupted."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "FAIL" and INTERRUPTED not in trial.user_attrs
    )


def best_trial(trials: "Iterable[FrozenTrial]", direction: str) -> "FrozenTrial | None":
    """Return the best complete trial; of equals the first, which Optuna's databases do not guarantee."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    sign = 1 if direction == "maximize" else -1
    return max(complete, key=lambda trial: sign * float(trial.value or 0.0), default=None)


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
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
