"""The study: Optuna's storage, and the rules that keep its trials exact. Nothing here trains.

A trial is COMPLETE, PRUNED or FAIL by its own merit, or FAIL because it was interrupted: its controller stopped, or
died. Interrupted trials do not count, and their configurations are queued again.
"""

import contextlib
import json
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import PARENT_TAG
from sweeps.search import heartbeat as alive
from sweeps.search.samplers import make_pruner, make_sampler
from sweeps.search.space import Space, encoded, keys_of, name_of
from sweeps.search.storage import turn

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

INTERRUPTED = "interrupted"  # the attribute of a trial that does not count, with its reason
CONTROLLER = "controller"
SEED = "seed "  # with its number: the value of one seed
PARENT = PARENT_TAG
FORMER = "litlab.former"
IDENTITY = "litlab.space"
TOTAL = "litlab.total"
ENDER = "litlab.ender"


class Study:
    """Optuna's study of a space, its trials counted as litlab counts them.

    Args:
        storage: See `open_storage`.
        name: The study's name.
        space: What is searched.
        facts: Of the experiment, from `sweeps.workers.worker.check`.
        controller: The name of this controller.
        exclusive: Whether no other controller can be at work.

    Raises:
        UserError: The study is there, and of another space; or sampler or pruner is unknown.
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
    ) -> None:
        import optuna

        self.space, self.name, self.controller, self._exclusive = space, name, controller, exclusive
        self.distributions = space.distributions(facts["values"])
        self.pruner_name = "" if name_of(space.pruner) == "none" else name_of(space.pruner)
        pruner = make_pruner(space.pruner, facts["max_epochs"])
        sampler = make_sampler(space.sampler, 0)
        try:
            self.optuna = optuna.create_study(
                storage=storage, study_name=name, direction=space.direction, sampler=sampler, pruner=pruner
            )
        except optuna.exceptions.DuplicatedStudyError:
            self.optuna = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        self._storage = storage
        self._own = self.own_values(facts["values"])
        with self.turn():
            self._same_space(identity(space, facts))
        self.optuna.set_user_attr(TOTAL, space.total)
        if not exclusive:
            alive.beat(self.optuna, controller)
        variant = len(self.trials()) if exclusive else zlib.crc32(controller.encode()) % 10**6
        self.optuna.sampler = make_sampler(space.sampler, variant)  # repeats no draws, its own or another's

    def turn(self) -> AbstractContextManager[None]:
        """Hold off the other controllers of the study."""
        return turn(self._storage, self.optuna._study_id)

    def _same_space(self, now: dict[str, Any]) -> None:
        """Make this the study's space, unless it has another."""
        known = self.optuna.user_attrs.get(IDENTITY, {} if self.trials() else now)
        known = {**known, "direction": self.optuna.direction.name.lower()}
        different = [key for key in now if now[key] != known.get(key)]
        if not different:
            self.optuna.set_user_attr(IDENTITY, now)
        elif self._exclusive and not self.counted():  # nothing is lost
            self._begin_anew(now)
        else:
            ranges = [key for key in {**known.get("space", {}), **now["space"]} if _differs(key, known, now)]
            which = f" ({'; '.join(ranges)})" if ranges else ""
            raise UserError(
                f"study {self.name} is there already, with another {' and '.join(different)}{which}: "
                f"give this one a name of its own with --study"
            )

    def _begin_anew(self, now: dict[str, Any]) -> None:
        import optuna

        former = [*self.formers(), self.optuna.user_attrs.get(PARENT)]
        optuna.delete_study(study_name=self.name, storage=self._storage)
        self.optuna = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            direction=self.space.direction,
            sampler=self.optuna.sampler,
            pruner=self.optuna.pruner,
        )
        self.optuna.set_user_attr(FORMER, [parent for parent in former if parent])
        self.optuna.set_user_attr(IDENTITY, now)

    def formers(self) -> list[str]:
        """The runs of this study before it began anew."""
        return list(self.optuna.user_attrs.get(FORMER, []))

    def own_values(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """The experiment's own configuration as a point of the space; empty if it is none."""
        point = {}
        for name, distribution in self.distributions.items():
            first, *others = (encoded(usual.get(key)) for key in keys_of(name))
            if any(other != first for other in others) or not _contains(distribution, first):
                return {}
            point[name] = distribution.to_external_repr(distribution.to_internal_repr(first))
        return point

    def trials(self) -> "list[FrozenTrial]":
        return list(self.optuna.get_trials(deepcopy=False))

    def counted(self) -> int:
        """How many trials have ended by their own merit."""
        return sum(counts(trial) for trial in self.trials())

    def best(self) -> "FrozenTrial | None":
        """The best complete trial so far."""
        return best_of(self.trials(), self.space.direction)

    def ask(self) -> "Trial | None":
        """The next trial; None if there are, or will be, as many as there are to be.

        Raises:
            UserError: The sampler cannot draw from this space.
        """
        with self.turn():
            if self._taken() >= self.space.total:
                return None
            waiting = any(trial.state.name == "WAITING" for trial in self.trials())
            if not waiting and (point := self._missing()):
                self.optuna.enqueue_trial(point)
            trial = self.optuna.ask()
            trial.set_user_attr(CONTROLLER, self.controller)
        try:
            for name, distribution in self.distributions.items():
                trial._suggest(name, distribution)
        except (ValueError, TypeError, ImportError) as error:
            self.interrupt(trial.number, str(error), again=False)
            raise UserError(f"sampler {name_of(self.space.sampler)}: {str(error).splitlines()[0]}") from error
        return trial

    def _taken(self) -> int:
        """How many trials count, or will when they have ended."""
        return sum(counts(trial) or trial.state.name == "RUNNING" for trial in self.trials())

    def _missing(self) -> dict[str, Any] | None:
        """The next point that has to be tried and is not there: one of the grid, or the experiment's own values."""
        there = {
            key_of(configuration(trial)) for trial in self.trials() if counts(trial) or not trial.state.is_finished()
        }
        wanted = self.space.grid() if self.space.is_grid else [self._own] if self._own else []
        return next((point for point in wanted if key_of(point) not in there), None)

    def finished_like(self, params: Mapping[str, Any]) -> "FrozenTrial | None":
        """A trial of the same configuration that has a result."""
        from optuna.trial import TrialState

        done = (TrialState.COMPLETE, TrialState.PRUNED)
        same = [trial for trial in self.trials() if trial.state in done and key_of(trial.params) == key_of(params)]
        return same[0] if same else None

    def tell(self, number: int, state: str, value: float | None, attributes: Mapping[str, Any]) -> bool:
        """Record a trial's end by its own merit; False if another controller has ended it.

        Args:
            number: Of the trial.
            state: COMPLETE, PRUNED or FAIL.
            value: Of a complete trial.
            attributes: What else to know of it.
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

    def interrupt(self, number: int, reason: str, *, again: bool = True) -> None:
        """Record that a trial was ended by no fault of its own, and queue its configuration again."""
        from optuna.trial import TrialState

        frozen = self.trials()[number]
        try:
            self._set(number, INTERRUPTED, reason)
            self.optuna.tell(number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):  # another controller did it
            return
        wanted = configuration(frozen)
        if again and wanted.keys() == self.distributions.keys():  # else it was not asked for to the end
            self.optuna.enqueue_trial(wanted)

    def reap(self) -> list[int]:
        """Interrupt the trials whose controller is dead; returns their numbers."""
        with self.turn():
            living = self.alive()
            dead = [trial.number for trial in self._running() if trial.user_attrs.get(CONTROLLER) not in living]
            for number in dead:
                self.interrupt(number, "its controller died")
            return dead

    def _running(self) -> "list[FrozenTrial]":
        return [trial for trial in self.trials() if trial.state.name == "RUNNING"]

    def alive(self) -> set[str]:
        """The controllers that are at work, this one among them."""
        return {self.controller} if self._exclusive else {self.controller, *alive.at_work(self.optuna)}

    def others(self) -> list[str]:
        """The other controllers that are at work."""
        return sorted(self.alive() - {self.controller})

    def has_company(self) -> bool:
        """Whether another controller is at work."""
        return bool(self.others())

    def is_shared(self) -> bool:
        """Whether another controller has a trial under way."""
        others = self.others()
        return any(trial.user_attrs.get(CONTROLLER) in others for trial in self._running())

    def take_end(self) -> bool:
        """Whether what comes after the search is for this controller to do; of several it is the first that asks."""
        with self.turn():
            ender = self.optuna.user_attrs.get(ENDER)
            goes_on = self.is_shared() or (self.counted() < self.space.total and self.has_company())
            if goes_on or ender in self.others():
                return False
            self.optuna.set_user_attr(ENDER, self.controller)
            return True

    def enders(self) -> list[str]:
        """Who does what comes after the search; while nobody does, all others that go on."""
        others, ender = self.others(), self.optuna.user_attrs.get(ENDER)
        return [ender] if ender in others else others

    def beating(self) -> AbstractContextManager[None]:
        """Say every few seconds that this controller is alive; who holds a study alone need not."""
        if self._exclusive:
            return contextlib.nullcontext()
        return alive.beating(self.optuna, self.controller)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        self._storage.set_trial_user_attr(trial_id, key, value)


def counts(trial: "FrozenTrial") -> bool:
    """Whether a trial is one of those that were asked for."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "FAIL" and INTERRUPTED not in trial.user_attrs
    )


def best_of(trials: "Iterable[FrozenTrial]", direction: str) -> "FrozenTrial | None":
    """The best complete trial, the first of equals; a database would say any of them."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    sign = 1 if direction == "maximize" else -1
    return max(complete, key=lambda trial: sign * float(trial.value or 0.0), default=None)


def tally(trials: "Iterable[FrozenTrial]") -> dict[str, int]:
    """How many trials are complete, pruned and failed; the interrupted are none of them."""
    states = [trial.state.name for trial in trials if counts(trial)]
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    return {name: states.count(state) for name, state in names.items()}


def seed_values(trial: "FrozenTrial") -> list[float]:
    """The values of a trial's seeds, as far as they are done."""
    return [value for key, value in trial.user_attrs.items() if key.startswith(SEED)]


def key_of(params: Mapping[str, Any]) -> str:
    """One text for one configuration; 0.1 + 0.2 is 0.3."""
    rounded = {key: float(f"{value:.12g}") if isinstance(value, float) else value for key, value in params.items()}
    return json.dumps(rounded, sort_keys=True)


def configuration(trial: "FrozenTrial") -> dict[str, Any]:
    """The values of a trial, also of one that has not begun, as far as they are known."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def identity(space: Space, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What makes trials comparable: everything but the budget, the sampler and the pruner; as a storage returns it."""
    known = {
        "experiment": facts["hash"],
        "space": space.space,
        "metric": space.metric,
        "direction": space.direction,
        "number of seeds": space.seeds,
    }
    stored: dict[str, Any] = json.loads(json.dumps(known))
    return stored


def _differs(key: str, known: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return bool(known.get("space", {}).get(key) != now["space"].get(key))


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
