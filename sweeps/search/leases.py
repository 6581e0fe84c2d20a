"""The part of a study that its controllers share: who is alive, whose trials are lost, who does the last part."""

import contextlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sweeps.search import heartbeat
from sweeps.search.space import Space
from sweeps.search.storage import study_lock
from sweeps.search.trial_state import CONTROLLER

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

FINALIZER = "litlab.finalizer"  # attribute of the study: the controller that does what follows the search
OLD_FINALIZER = "litlab.ender"  # its name in studies of earlier versions


class SharedStudy(ABC):
    """Base class of a study that several controllers may work on."""

    optuna: "OptunaStudy"
    space: Space
    controller: str
    _storage: "BaseStorage"
    _exclusive: bool

    @abstractmethod
    def trials(self) -> "list[FrozenTrial]":
        """Return all trials."""

    @abstractmethod
    def n_finished(self) -> int:
        """Return how many trials count towards the total."""

    @abstractmethod
    def interrupt(self, number: int, reason: str, *, requeue: bool = True) -> None:
        """Record that a trial was interrupted."""

    def lock(self) -> AbstractContextManager[None]:
        """Lock the study against its other controllers."""
        return study_lock(self._storage, self.optuna._study_id)

    def reap(self) -> list[int]:
        """Interrupt the trials whose controller is dead; returns their numbers."""
        with self.lock():
            living = self.alive()
            dead = [trial.number for trial in self._running() if trial.user_attrs.get(CONTROLLER) not in living]
            for number in dead:
                self.interrupt(number, "its controller died")
            return dead

    def _running(self) -> "list[FrozenTrial]":
        return [trial for trial in self.trials() if trial.state.name == "RUNNING"]

    def alive(self) -> set[str]:
        """Return the controllers that are alive, including this one."""
        return {self.controller} if self._exclusive else {self.controller, *heartbeat.at_work(self.optuna)}

    def others(self) -> list[str]:
        """Return the other controllers that are alive."""
        return sorted(self.alive() - {self.controller})

    def has_company(self) -> bool:
        """Return whether another controller is alive."""
        return bool(self.others())

    def is_shared(self) -> bool:
        """Return whether another controller that is alive has an active trial."""
        others = self.others()
        return any(trial.user_attrs.get(CONTROLLER) in others for trial in self._running())

    def take_end(self) -> bool:
        """Claim what follows the search for this controller; of several, the first that asks gets it."""
        with self.lock():
            goes_on = self.is_shared() or (self.n_finished() < self.space.total and self.has_company())
            if goes_on or self._enders() & set(self.others()):
                return False
            self.optuna.set_user_attr(FINALIZER, self.controller)
            return True

    def enders(self) -> list[str]:
        """Return who does what follows the search; if no one has claimed it, all other controllers that are alive."""
        others, enders = self.others(), self._enders()
        return [name for name in others if name in enders] or others

    def _enders(self) -> set[str]:
        """Return the controllers that have claimed it; one of an earlier version may be alive beside a newer one."""
        attributes = self.optuna.user_attrs
        return {attributes[key] for key in (FINALIZER, OLD_FINALIZER) if key in attributes}

    def beating(self) -> AbstractContextManager[None]:
        """Record a heartbeat every few seconds; not needed if no other controller can join."""
        if self._exclusive:
            return contextlib.nullcontext()
        return heartbeat.beating(self.optuna, self.controller)
