"""What the trials of a study add up to. A trial that has ended does not change any more, so it is read once.

A study may have thousands of trials, and the controller asks for these sums several times per trial.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.search.trial_state import (
    BestTrial,
    describe_best,
    has_result,
    is_own,
    one_per_point,
    params_key,
    retried_numbers,
    trial_params,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Tally:
    """Sums over the trials of a study, as of the last `update` and with the trials that `add` has read since.

    Args:
        direction: "maximize" or "minimize".
        is_grid: Whether the study tries each point once.
    """

    def __init__(self, direction: str, *, is_grid: bool) -> None:
        self._sign, self._is_grid = 1 if direction == "maximize" else -1, is_grid
        self._open: list[FrozenTrial] = []  # have not ended
        self._n_read = 0
        self._results: list[FrozenTrial] = []  # litlab's, ended by their own result, by number
        self._retried: set[int] = set()
        self._keys: dict[int, str] = {}  # by number: the configurations of `_results`
        self._trained: dict[str, FrozenTrial] = {}  # by configuration: the first complete or pruned trial
        self._best: FrozenTrial | None = None

    def update(self, trials: "Sequence[FrozenTrial]") -> None:
        """Read all trials of the study, in the order of their numbers: those that are new or had not ended."""
        numbers = [*(trial.number for trial in self._open), *range(self._n_read, len(trials))]
        self._open, self._n_read = [], len(trials)
        for trial in (trials[number] for number in numbers):
            if trial.state.is_finished():
                self.add(trial)
            else:
                self._open.append(trial)

    def add(self, trial: "FrozenTrial") -> None:
        """Read a trial that has ended; `update` does not read it again."""
        self._retried |= retried_numbers([trial])
        if trial.number in self._keys or not has_result(trial):
            return
        bisect.insort(self._results, trial, key=lambda result: result.number)
        key = self._keys[trial.number] = params_key(trial.params)
        if trial.state.name == "FAIL":
            return
        if key not in self._trained or trial.number < self._trained[key].number:
            self._trained[key] = trial
        if trial.state.name == "COMPLETE" and (self._best is None or self._rank(trial) > self._rank(self._best)):
            self._best = trial

    def _rank(self, trial: "FrozenTrial") -> tuple[float, int]:
        return self._sign * (trial.value or 0.0), -trial.number

    @property
    def has_queued(self) -> bool:
        return any(trial.state.name == "WAITING" for trial in self._open)

    def counted(self) -> "list[FrozenTrial]":
        """Return the trials that count towards the total, see `counted_trials`."""
        retried = self._retried | retried_numbers(self._open)
        results = [trial for trial in self._results if trial.number not in retried]
        return one_per_point(results, lambda trial: self._keys[trial.number]) if self._is_grid else results

    def best(self) -> BestTrial | None:
        """Return litlab's best complete trial; of equals the first."""
        return None if self._best is None else describe_best(self._best)

    def trained_like(self, params: Mapping[str, Any]) -> "FrozenTrial | None":
        """Return the first complete or pruned trial of litlab with this configuration."""
        return self._trained.get(params_key(params))

    def n_taken(self) -> int:
        """Return how many trials count or are active; of a grid, how many points."""
        return len(self.tried()) if self._is_grid else len(self.counted()) + len(self._active())

    def tried(self) -> set[str]:
        """Return the configurations of the trials that count or are active."""
        active = {params_key(trial_params(trial)) for trial in self._active()}
        return {self._keys[trial.number] for trial in self.counted()} | active

    def _active(self) -> "list[FrozenTrial]":
        return [trial for trial in self._open if trial.state.name == "RUNNING" and is_own(trial)]
