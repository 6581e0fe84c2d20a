"""The study: Optuna's storage of trials, and how they are counted, queued and ended."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line
from pipelines.tracking.tags import PARENT_TAG
from sweeps.search.optuna_internals import queued_params
from sweeps.search.ownership import check_distributions
from sweeps.search.ranges import point_error
from sweeps.search.space import Space, canonical_name
from sweeps.search.tally import Tally
from sweeps.search.trial_state import (
    CONTROLLER,
    INTERRUPTED,
    INVALID,
    REASON,
    RETRY,
    BestTrial,
    is_own,
    is_result,
    params_key,
    trial_params,
)

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

# User attributes of the study
PARENT = PARENT_TAG  # id of the study's own run
PREVIOUS_RUNS = "litlab.previous_runs"
OLD_PREVIOUS_RUNS = "litlab.former"  # its name in studies of earlier versions

CHECK_S = 10.0  # between two checks of the connection to the database


class Study:
    """Optuna's study of a space, with trials counted as litlab counts them. `open_study` opens one.

    Args:
        optuna: Optuna's study.
        storage: Its storage.
        space: The search space.
        controller: Name of this controller.
        values: The experiment's own value of each key.

    Attributes:
        distributions: Optuna's distribution of each searched key.
        default_point: The experiment's own values of the searched keys; empty if they lie outside the space.
    """

    def __init__(
        self,
        optuna: "OptunaStudy",
        storage: "BaseStorage",
        space: Space,
        controller: str,
        values: Mapping[str, Any],
    ) -> None:
        self.optuna, self.space, self.controller = optuna, space, controller
        self._storage, self._check_after = storage, 0.0
        self._study_id = storage.get_study_id_from_name(self.name)
        self._tally, self._reads = Tally(space.direction, is_grid=space.is_grid), True
        self.distributions = space.distributions(values)
        self.default_point = space.default_point(values)

    @property
    def name(self) -> str:
        return str(self.optuna.study_name)

    def trials(self) -> "list[FrozenTrial]":
        return list(self.optuna.get_trials(deepcopy=False))

    def trial(self, number: int) -> "FrozenTrial":
        return self._storage.get_trial(self._trial_id(number))

    @contextlib.contextmanager
    def as_known(self) -> Iterator[None]:
        """Within the block, answer from what `ask` and `tell` have read: a database reads all active trials at once."""
        self._reads = False
        try:
            yield
        finally:
            self._reads = True

    def _tallied(self) -> Tally:
        if self._reads:
            self._tally.update(self.trials())
        return self._tally

    def counted(self) -> "list[FrozenTrial]":
        """Return the trials that count towards the total."""
        return self._tallied().counted()

    def without_others(self) -> "OptunaStudy":
        """Return the study, or a copy in memory of its ended trials if other programs have added some.

        These may have other keys, which figures and importances do not allow for.
        """
        import optuna

        if all(map(is_own, self.trials())):
            return self.optuna
        copy = optuna.create_study(direction=self.optuna.direction)
        copy.add_trials([trial for trial in self.trials() if is_own(trial) and trial.state.is_finished()])
        return copy

    def n_finished(self) -> int:
        """Return how many trials count towards the total."""
        return len(self.counted())

    def best(self) -> BestTrial | None:
        """Return the best complete trial so far."""
        return self._tallied().best()

    def ask(self) -> "Trial | None":
        """Return the next trial, or None if the total is reached once the active trials have ended.

        A queued point that is not in the space, which another program may have queued, fails.

        Raises:
            UserError: The sampler cannot draw from this space.
        """
        while (trial := self._next_trial()) is not None:
            reason = point_error(trial_params(self.trial(trial.number)), self.distributions)
            if not reason:
                return self._draw(trial)
            logger.warning("trial %d was queued with a point that is not in the space: %s", trial.number, reason)
            self.tell(trial.number, "FAIL", None, {INVALID: reason, REASON: reason})
        return None

    def _next_trial(self) -> "Trial | None":
        """Return a queued trial or a new one, marked as litlab's from the moment that it exists."""
        tally = self._tallied()
        if tally.n_taken() >= self.space.total:
            return None
        if not tally.has_queued:
            self._enqueue(self._next_required_point(tally) or {})
        trial = self.optuna.ask()
        trial.set_user_attr(CONTROLLER, self.controller)
        return trial

    def _enqueue(self, params: Mapping[str, Any], attributes: Mapping[str, Any] | None = None) -> None:
        """Queue a point as litlab's own. The sampler draws the keys that it lacks."""
        self.optuna.enqueue_trial(dict(params), user_attrs={**(attributes or {}), CONTROLLER: self.controller})

    def _draw(self, trial: "Trial") -> "Trial":
        """Have the sampler draw the values of a trial.

        Raises:
            UserError: It cannot draw from this space.
        """
        try:
            for name, distribution in self.distributions.items():
                _suggest(trial, name, distribution)
        except (ValueError, TypeError, ImportError) as error:
            self.interrupt(trial.number, str(error), requeue=False)
            check_distributions(self.optuna, self.distributions)
            raise UserError(f"sampler {canonical_name(self.space.sampler)}: {first_line(error)}") from error
        return trial

    def _next_required_point(self, tally: Tally) -> dict[str, Any] | None:
        """Return the next point that must be tried and has no trial yet: of the grid, or the experiment's own."""
        tried = tally.tried() if self._required else set()
        return next((point for key, point in self._required.items() if key not in tried), None)

    @functools.cached_property
    def _required(self) -> dict[str, dict[str, Any]]:
        """The points that must be tried, by their configuration."""
        required = self.space.grid() if self.space.is_grid else [self.default_point] if self.default_point else []
        return {params_key(point): point for point in required}

    def finished_like(self, params: Mapping[str, Any]) -> "FrozenTrial | None":
        """Return a complete or pruned trial of this configuration that litlab had trained before the last `ask`."""
        return self._tally.trained_like(params)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def tell(self, number: int, state: str, value: float | None, attributes: Mapping[str, Any]) -> bool:
        """Record the result of a trial (COMPLETE, PRUNED or FAIL) with further user attributes.

        Returns:
            False if another program has ended the trial.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        storage, trial_id = self._storage, self._trial_id(number)
        try:
            for key, attribute in attributes.items():
                storage.set_trial_user_attr(trial_id, key, attribute)
            self.optuna.tell(number, value, state=TrialState[state])
        except (ValueError, UpdateFinishedTrialError):  # Optuna: "Cannot tell a FAIL trial"
            return False
        self._tally.add(self.trial(number))
        return True

    def interrupt(self, number: int, reason: str, *, requeue: bool = True) -> None:
        """Record that a trial was interrupted, which does not count, and queue its configuration again."""
        trial = self.trial(number)
        params, queued = trial_params(trial), queued_params(trial)
        if not self.tell(number, "FAIL", None, {INTERRUPTED: reason}):  # another program did it
            return
        if params.keys() != self.distributions.keys():  # its controller died while the sampler drew its values
            params = queued
        if requeue and (params or RETRY in trial.user_attrs):
            self._enqueue(params, {key: value for key, value in trial.user_attrs.items() if not is_result(key)})

    def retry_failed(self) -> int:
        """Queue the configuration of each failed trial again, to count in its place; return how many there are."""
        failed = [trial for trial in self.counted() if trial.state.name == "FAIL"]
        for trial in failed:
            self._enqueue(trial.params, {RETRY: trial.number})
        return len(failed)

    def reap(self) -> list[int]:
        """Interrupt the trials that an earlier controller, which is dead, has left running; return their numbers."""
        left = [trial.number for trial in self.trials() if self._is_left(trial)]
        for number in left:
            self.interrupt(number, "its controller died")
        return left

    def _is_left(self, trial: "FrozenTrial") -> bool:
        return trial.state.name == "RUNNING" and is_own(trial) and trial.user_attrs[CONTROLLER] != self.controller

    def check_connection(self) -> None:
        """Every few seconds, use the connection to the database, whose loss ends the sweep; see `sole_controller`.

        Raises:
            UserError: The connection broke, and with it the lock of the study.
            StorageInternalError: The same, when it is noticed first.
        """
        if time.monotonic() > self._check_after:
            self._storage.get_study_id_from_name(self.name)
            self._check_after = time.monotonic() + CHECK_S


def previous_runs(study: "OptunaStudy") -> list[str]:
    """Return the ids of a study's own runs before it was restarted with another space."""
    return [*study.user_attrs.get(OLD_PREVIOUS_RUNS, []), *study.user_attrs.get(PREVIOUS_RUNS, [])]


def _suggest(trial: "Trial", name: str, distribution: Any) -> None:
    """Have the sampler draw a value. `Study.ask` could do it, but leaves the trial running if the sampler fails."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
        return
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
