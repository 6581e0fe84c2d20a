"""The study: Optuna's storage, and the rules that keep its trials exact. Nothing here trains."""

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.config.identity import complete_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_TAG
from sweeps.search import heartbeat
from sweeps.search.identity import changed_ranges, identity, is_same_experiment, trial_runs
from sweeps.search.leases import SharedStudy
from sweeps.search.ranges import encode
from sweeps.search.samplers import make_pruner, make_sampler
from sweeps.search.space import Space, canonical_name, split_keys
from sweeps.search.trial_state import CONTROLLER, INTERRUPTED, best_trial, is_counted, params_key, trial_params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

# User attributes of the study
PARENT = PARENT_TAG  # id of the study's own run
PREVIOUS_RUNS = "litlab.previous_runs"
OLD_PREVIOUS_RUNS = "litlab.former"  # its name in studies of earlier versions
IDENTITY = "litlab.space"
CONFIG = "litlab.config"  # the experiment's configuration
TOTAL = "litlab.total"


class Study(SharedStudy):
    """Optuna's study of a space, with trials counted as litlab counts them.

    Args:
        storage: See `open_storage`.
        name: The study's name.
        space: The search space.
        facts: Facts about the experiment, from `sweeps.workers.worker.check_experiment`.
        controller: Name of this controller.
        exclusive: Whether no other controller can join.
        store: The tracking store, which has the configurations of studies of earlier versions.

    Raises:
        UserError: The study exists with another space, or the sampler or pruner is unknown.
    """

    def __init__(
        self,
        storage: "BaseStorage",
        name: str,
        space: Space,
        facts: Mapping[str, Any],
        controller: str,
        *,
        exclusive: bool,
        store: Store | None = None,
    ) -> None:
        import optuna

        self.space, self.name, self.controller, self._exclusive = space, name, controller, exclusive
        self.distributions = space.distributions(facts["values"])
        self.pruner_name = "" if canonical_name(space.pruner) == "none" else canonical_name(space.pruner)
        pruner = make_pruner(space.pruner, facts["max_epochs"])
        sampler = make_sampler(space.sampler, 0)
        try:
            self.optuna = optuna.create_study(
                storage=storage, study_name=name, direction=space.direction, sampler=sampler, pruner=pruner
            )
        except optuna.exceptions.DuplicatedStudyError:
            self.optuna = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        self._storage = storage
        self._default_point = self.default_point(facts["values"])
        with self.lock():
            self._check_identity(identity(space, facts), facts, store)
        self.optuna.set_user_attr(TOTAL, space.total)
        if not exclusive:
            heartbeat.beat(self.optuna, controller)
        variant = len(self.trials()) if exclusive else zlib.crc32(controller.encode()) % 10**6
        self.optuna.sampler = make_sampler(space.sampler, variant)  # repeats no draws of its own or of others

    def _check_identity(self, new: dict[str, Any], facts: Mapping[str, Any], store: Store | None) -> None:
        """Make this space the study's, unless the study has another one.

        Raises:
            UserError: It has another one, and trials that count.
        """
        stored = self.optuna.user_attrs.get(IDENTITY, {} if self.trials() else new)
        stored = with_old_class_paths({**stored, "direction": self.optuna.direction.name.lower()})
        if "experiment" in stored and self._is_same_experiment(stored["experiment"], facts, store):
            new = {**new, "experiment": stored["experiment"]}  # so the version that began the study can continue it
        different = [key for key in new if new[key] != stored.get(key)]
        if not different:
            self._set_identity(new, facts)
        elif self._exclusive and not self.n_finished():  # nothing is lost
            self._restart(identity(self.space, facts), facts)
        else:
            ranges = changed_ranges(stored, new)
            which = f" ({'; '.join(ranges)})" if ranges else ""
            raise UserError(
                f"study {self.name} already exists with another {' and '.join(different)}{which}: "
                f"choose another name with --study"
            )

    def _is_same_experiment(self, stored_hash: str, facts: Mapping[str, Any], store: Store | None) -> bool:
        attributes = self.optuna.user_attrs
        runs = trial_runs(store, attributes.get(PARENT)) if store else ()
        return stored_hash == facts["hash"] or is_same_experiment(attributes.get(CONFIG), runs, self.space, facts)

    def _set_identity(self, new: dict[str, Any], facts: Mapping[str, Any]) -> None:
        """Record what the study searches, with the defaults of today for keys that its former versions did not know."""
        config = self.optuna.user_attrs.get(CONFIG, facts["config"])
        self.optuna.set_user_attr(IDENTITY, new)
        self.optuna.set_user_attr(CONFIG, complete_config(config, facts["defaults"]))

    def _restart(self, new: dict[str, Any], facts: Mapping[str, Any]) -> None:
        """Replace the study by an empty one of another space."""
        import optuna

        previous = [*self.previous_runs(), self.optuna.user_attrs.get(PARENT)]
        optuna.delete_study(study_name=self.name, storage=self._storage)
        self.optuna = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            direction=self.space.direction,
            sampler=self.optuna.sampler,
            pruner=self.optuna.pruner,
        )
        self.optuna.set_user_attr(PREVIOUS_RUNS, [run_id for run_id in previous if run_id])
        self._set_identity(new, facts)

    def previous_runs(self) -> list[str]:
        """Return the ids of the study's own runs before it was restarted with another space."""
        attributes = self.optuna.user_attrs
        return [*attributes.get(OLD_PREVIOUS_RUNS, []), *attributes.get(PREVIOUS_RUNS, [])]

    def default_point(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the experiment's own configuration as a point of the space; empty if it lies outside."""
        point = {}
        for name, distribution in self.distributions.items():
            first, *others = (encode(defaults.get(key)) for key in split_keys(name))
            if any(other != first for other in others) or not _contains(distribution, first):
                return {}
            point[name] = distribution.to_external_repr(distribution.to_internal_repr(first))
        return point

    def trials(self) -> "list[FrozenTrial]":
        return list(self.optuna.get_trials(deepcopy=False))

    def n_finished(self) -> int:
        """Return how many trials count towards the total."""
        return sum(is_counted(trial) for trial in self.trials())

    def best(self) -> "FrozenTrial | None":
        """Return the best complete trial so far."""
        return best_trial(self.trials(), self.space.direction)

    def ask(self) -> "Trial | None":
        """Return the next trial, or None if the total is reached once the active trials have ended.

        Raises:
            UserError: The sampler cannot draw from this space.
        """
        with self.lock():
            if self._n_taken() >= self.space.total:
                return None
            is_waiting = any(trial.state.name == "WAITING" for trial in self.trials())
            if not is_waiting and (point := self._next_required_point()):
                self.optuna.enqueue_trial(point)
            trial = self.optuna.ask()
            trial.set_user_attr(CONTROLLER, self.controller)
        try:
            for name, distribution in self.distributions.items():
                trial._suggest(name, distribution)
        except (ValueError, TypeError, ImportError) as error:
            self.interrupt(trial.number, str(error), requeue=False)
            raise UserError(f"sampler {canonical_name(self.space.sampler)}: {str(error).splitlines()[0]}") from error
        return trial

    def _n_taken(self) -> int:
        """Return how many trials count, or will count when they have ended."""
        return sum(is_counted(trial) or trial.state.name == "RUNNING" for trial in self.trials())

    def _next_required_point(self) -> dict[str, Any] | None:
        """Return the next point that must be tried and has no trial yet: of the grid, or the experiment's own."""
        tried = {
            params_key(trial_params(trial))
            for trial in self.trials()
            if is_counted(trial) or not trial.state.is_finished()
        }
        required = self.space.grid() if self.space.is_grid else [self._default_point] if self._default_point else []
        return next((point for point in required if params_key(point) not in tried), None)

    def finished_like(self, params: Mapping[str, Any]) -> "FrozenTrial | None":
        """Return a complete or pruned trial of the same configuration, if there is one."""
        done = ("COMPLETE", "PRUNED")
        same = [
            trial
            for trial in self.trials()
            if trial.state.name in done and params_key(trial.params) == params_key(params)
        ]
        return same[0] if same else None

    def tell(self, number: int, state: str, value: float | None, attributes: Mapping[str, Any]) -> bool:
        """Record a trial's result.

        Args:
            number: The trial's number.
            state: COMPLETE, PRUNED or FAIL.
            value: Value of a complete trial.
            attributes: Further user attributes.

        Returns:
            False if another controller has ended the trial.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            for key, attribute in attributes.items():
                self._set(number, key, attribute)
            self.optuna.tell(number, value, state=TrialState[state])
        except (ValueError, UpdateFinishedTrialError):  # Optuna: "Cannot tell a FAIL trial"
            return False
        return True

    def interrupt(self, number: int, reason: str, *, requeue: bool = True) -> None:
        """Record that a trial was interrupted, which does not count, and queue its configuration again."""
        from optuna.trial import TrialState

        frozen = self.trials()[number]
        try:
            self._set(number, INTERRUPTED, reason)
            self.optuna.tell(number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):  # another controller did it
            return
        params = trial_params(frozen)
        if requeue and params.keys() == self.distributions.keys():  # else its controller died while asking for it
            self.optuna.enqueue_trial(params)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        self._storage.set_trial_user_attr(trial_id, key, value)


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
