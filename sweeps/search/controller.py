"""The one writer of a study: it asks Optuna, has children train, decides with the pruner, and tells."""

import math
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    CONFIGURATION_TAG,
    PARENT_RUN_TAG,
    REASON_TAG,
    SEED_TAG,
    STAGE_TAG,
    STUDY_TAG,
    TRIAL_STATE_TAG,
    TRIAL_TAG,
)
from sweeps.search import study_run as record
from sweeps.search.display import SweepDisplay
from sweeps.search.heartbeat import BEAT_S, called
from sweeps.search.space import Space
from sweeps.search.study import CONTROLLER, SEED, Study, counts, key_of
from sweeps.workers.batch import authoritative_message, end_orphan
from sweeps.workers.display import format_params
from sweeps.workers.job import Job, as_arguments
from sweeps.workers.pool import Message, Pool, WorkerProcess

if TYPE_CHECKING:
    from optuna.trial import Trial

CHECKPOINTS = "checkpoints"
PAUSE_S = 2.0  # before asking again, when there was nothing to do


@dataclass
class Going:
    """A trial under way: the values of the seeds that are done, and later trials of the same configuration."""

    trial: "Trial"
    began: float
    values: dict[int, float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    followers: list["Trial"] = field(default_factory=list)


class Controller:
    """Drives a study to its total, then confirms the best configuration on fresh seeds.

    Args:
        study: What is searched.
        pool: Who trains.
        store: Where runs are kept.
        parent: The study's own run.
        experiment: The MLflow experiment of the parent and its children.
        arguments: The experiment and the keys that are the same in all trials.
        devices: How many GPUs a training uses, if there are any.
        board: What the user sees.
        stacked: How many trainings a process trains as one.
    """

    def __init__(
        self,
        study: Study,
        pool: Pool,
        store: Store,
        parent: Run,
        experiment: str,
        arguments: list[str],
        devices: int,
        board: SweepDisplay,
        stacked: int = 1,
    ) -> None:
        self.study, self.pool, self.store, self.parent, self.board = study, pool, store, parent, board
        self.space: Space = study.space
        self.experiment, self.arguments, self.devices = experiment, arguments, devices
        self.stacked = stacked
        self._going: dict[int, Going] = {}
        self._waiting: list[Job] = []
        self._until = math.inf if self.space.timeout is None else time.monotonic() + self.space.timeout
        self._wait_until = self._look_at = 0.0
        self._complete = self._waits = False
        self._finished: dict[tuple[str, int], StoredRun] = {}

    @property
    def stops(self) -> int:
        """How often the user has asked for an end: once properly, twice at once."""
        return self.pool.stop_requests

    def _end_runs(self, alive: Collection[str]) -> dict[tuple[str, int], StoredRun]:
        """End the runs of all but these controllers; returns the finished ones, by configuration and seed."""
        finished = {}
        for run in self.store.children(self.parent.run_id):
            if run.status == "RUNNING" and run.tags.get("controller") not in alive:
                self.store.end(run.run_id, *self._end_of(run))
            elif (
                run.status == "FINISHED"
                and run.tags.get(STAGE_TAG) == "search"
                and run.tags.get(TRIAL_STATE_TAG) != "FAIL"
            ):
                finished[run.tags[CONFIGURATION_TAG], int(run.tags[SEED_TAG])] = run
        return finished

    def _end_of(self, run: StoredRun) -> tuple[str, str]:
        """Status and reason of a run that its own process could not end: the trial's, if that has failed."""
        mine = [trial for trial in self.study.trials() if str(trial.number) == run.tags.get(TRIAL_TAG)]
        if mine and mine[0].state.name == "FAIL" and counts(mine[0]):
            return "FAILED", mine[0].user_attrs.get("reason", "its process died")
        return "KILLED", "its process died"

    def search(self) -> None:
        """Run trials until there are as many as asked for, the time is over or the user stops.

        Who has none left waits for those of others, which may die.
        """
        self.study.reap()
        self._finished = self._end_runs(self.study.others())
        while True:
            self._fill()
            if not self._going and (self.stops or self._complete or time.monotonic() > self._until):
                break
            for child, message in self.pool.events(0.25):
                self._hear(child, message)
            self._take_over()
            self.board.show(self.study, self.pool.children)

    def _take_over(self) -> None:
        """Now and then, take what dead controllers have left."""
        if time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + BEAT_S
            lost = self.study.reap()
            for number in lost:
                who = called(self.study.trials()[number].user_attrs.get(CONTROLLER, "its controller"))
                self.board.print(f"trial {number:>3}  interrupted: {who} died; it comes again")
            if lost:
                self._finished = self._end_runs(self.study.alive())

    def close(self) -> None:
        """Leave nothing under way, whatever has happened: no process, no trial, no run."""
        self.pool.kill_all()
        for going in list(self._going.values()):
            self._drop(going, "stopped")
        self._end_runs(self.study.others())

    def _fill(self) -> None:
        while not self.stops and self._wait_until < time.monotonic() < self._until and self._has_room():
            trial = self.study.ask()
            if trial is None:
                self._wait_until = time.monotonic() + PAUSE_S
                self._complete = self.study.counted() >= self.space.total
                if not (self._going or self._complete or self._waits):
                    self._waits = True
                    self.board.print(f"{self.study.name}: the last trials are with others; waiting, in case one dies")
            else:
                self._begin(trial)
        self._start_waiting()

    def _has_room(self) -> bool:
        return len(self._going) < self.pool.workers * self.stacked and bool(self.pool.free_slots)

    def _start_waiting(self) -> None:
        """Begin the trainings that wait, shared out among the free slots; after a stop, none."""
        while self._waiting and (self.stops or self.pool.free_slots):
            size = min(self.stacked, math.ceil(len(self._waiting) / max(1, len(self.pool.free_slots))))
            jobs, self._waiting = self._waiting[:size], self._waiting[size:]
            if self.stops:
                for job in jobs:
                    self._drop(self._going[int(job.tags[TRIAL_TAG])], "stopped")
            elif self.stacked > 1:
                self.pool.start_stack(jobs)
            else:
                self.pool.start(jobs[0])

    def _begin(self, trial: "Trial") -> None:
        """Train a configuration, unless it has been trained, or is being trained."""
        like = self.study.finished_like(trial.params)
        same = [going for going in self._going.values() if key_of(going.trial.params) == key_of(trial.params)]
        if like is not None:
            self._copy(trial, like.number)
        elif same:
            same[0].followers.append(trial)
        else:
            self._going[trial.number] = Going(trial, time.monotonic())
            self._next_seed(self._going[trial.number])

    def _copy(self, trial: "Trial", number: int) -> None:
        like = self.study.trials()[number]
        for step, value in like.intermediate_values.items():
            trial.report(value, step)
        kept = {key: value for key, value in like.user_attrs.items() if key == "runs" or key.startswith(SEED)}
        result = like.value if like.state.name == "COMPLETE" else None
        self.study.tell(trial.number, like.state.name, result, {"same as": number, **kept})
        self.board.ended(self.study, trial.number, like.state.name, 0.0, f"the same as trial {number}")

    def _next_seed(self, going: Going) -> None:
        """Begin the next seed of a trial; if all are done, tell their mean."""
        for seed in range(self.space.seeds):
            if seed in going.values:
                continue
            known = self._finished.get((key_of(going.trial.params), seed))
            value = known.metrics.get(f"selected/{self.space.metric}") if known else None
            if known is None or value is None:
                self._waiting.append(self._job(going.trial.params, seed, going.trial.number))
                return
            self._take(going, seed, value, known.run_id)
        self._end(going, "COMPLETE")

    def _job(self, params: Mapping[str, Any], seed: int, trial: int) -> Job:
        tags = {STAGE_TAG: "search", TRIAL_TAG: str(trial), CONFIGURATION_TAG: key_of(params)}
        name = f"trial {trial}" + (f" seed {seed}" if self.space.seeds > 1 else "")
        return Job(
            arguments=[*self.arguments, *as_arguments(self.space.settings(params))],
            seed=seed,
            experiment=self.experiment,
            tracking_uri=self.store.uri,
            run_name=name,
            tags={**self.tags, **tags},
            metric=self.space.metric,
            pruner=self.study.pruner_name,
            devices=self.devices,
        )

    @property
    def tags(self) -> dict[str, str]:
        """What all runs of the study say of where they belong."""
        return {
            PARENT_RUN_TAG: self.parent.run_id,
            STUDY_TAG: self.study.name,
            "controller": self.study.controller,
        }

    def _hear(self, child: WorkerProcess, message: Message) -> None:
        going = self._going[int(child.job.tags[TRIAL_TAG])]
        kind, *rest = authoritative_message(self.store, child, message)
        if kind == "epoch":
            child.answer(self._prune(going, child.job.seed, *rest))
            return
        if child.run_id:
            going.runs.append(child.run_id)
        if kind == "done":
            self._value(going, child, rest[0].get(f"selected/{self.space.metric}"))
        elif kind == "pruned":
            self._end(going, "PRUNED")
        elif kind == "refused":  # no trial can succeed
            end_orphan(self.store, child, "FAILED", rest[0])
            self._drop(going, rest[0], again=False)
            raise UserError(rest[0])
        elif self.stops:
            end_orphan(self.store, child, "KILLED", "stopped")
            self._drop(going, "stopped")
        else:
            end_orphan(self.store, child, "FAILED", rest[0])
            self._end(going, "FAIL", rest[0])

    def _prune(self, going: Going, seed: int, step: int, value: float) -> bool:
        """Report an epoch of a trial's first seed; whether the pruner ends the trial, or another controller has."""
        from optuna.exceptions import UpdateFinishedTrialError

        if seed != 0:
            return False
        try:
            going.trial.report(value, step)
        except UpdateFinishedTrialError:
            return True
        return bool(going.trial.should_prune())

    def _value(self, going: Going, child: WorkerProcess, value: float | None) -> None:
        if value is None or not math.isfinite(value):
            self._end(going, "FAIL", f"{self.space.metric} of the selected epoch is {value}")
            return
        self._take(going, child.job.seed, value, child.run_id)
        if self.stops and len(going.values) < self.space.seeds:
            self._drop(going, "stopped")  # the seeds that are done are kept
        else:
            self._next_seed(going)

    def _take(self, going: Going, seed: int, value: float, run_id: str) -> None:
        going.values[seed] = value
        going.trial.set_user_attr(f"{SEED}{seed}", value)
        if run_id not in going.runs:
            going.runs.append(run_id)

    def _end(self, going: Going, state: str, reason: str = "") -> None:
        """Tell a trial's end, and that of the trials that wait for it."""
        trial = going.trial
        facts = {"runs": going.runs, "seconds": round(time.monotonic() - going.began, 1)}
        value = statistics.mean(going.values.values()) if state == "COMPLETE" else None
        if not self.study.tell(trial.number, state, value, {**facts, **({"reason": reason[:2000]} if reason else {})}):
            self._lose(going)
            return
        for run_id in going.runs:
            self.store.tag(run_id, TRIAL_STATE_TAG, state)
        del self._going[trial.number]
        self.board.ended(
            self.study, trial.number, state, time.monotonic() - going.began, reason or format_params(trial.params)
        )
        for follower in going.followers:
            if state == "FAIL":
                self.study.tell(follower.number, state, None, {"reason": f"as trial {trial.number}: {reason}"[:2000]})
            else:
                self._copy(follower, trial.number)
        record.log_progress(self.parent, self.study)
        self._delete_checkpoints(going.runs, trial.number)

    def _lose(self, going: Going) -> None:
        """Leave a trial to others, which have taken this controller for dead, and queued it again."""
        self.board.print(
            f"trial {going.trial.number:>3}  lost: this controller was silent, and others took it for dead"
        )
        for run_id in going.runs:
            self.store.tag(run_id, REASON_TAG, "its controller was taken for dead")
        self._drop(going, "its controller was taken for dead")

    def _drop(self, going: Going, reason: str, *, again: bool = True) -> None:
        """A trial that was ended by no fault of its own."""
        del self._going[going.trial.number]
        for trial in (going.trial, *going.followers):
            self.study.interrupt(trial.number, reason, again=again and trial is going.trial)

    def _delete_checkpoints(self, runs: list[str], number: int) -> None:
        """Keep the checkpoints of the best trial only."""
        best = self.study.best()
        if self.space.keep == "best" and (best is None or best.number != number):
            for run_id in runs:
                self.store.delete_files(run_id, CHECKPOINTS)

    def tidy(self) -> None:
        """Delete the checkpoints of trials that were the best for a while, and copy those of the best one.

        Those of interrupted trials stay: the seeds that are done will count.
        """
        best = self.study.best()
        if best is None:
            return
        children = [run for run in self.store.children(self.parent.run_id) if run.tags.get(STAGE_TAG) == "search"]
        mine = [run for run in children if run.tags[CONFIGURATION_TAG] == key_of(best.params)]
        ended = {key_of(trial.params) for trial in self.study.trials() if counts(trial)}
        for run in children:
            if self.space.keep == "best" and run not in mine and run.tags[CONFIGURATION_TAG] in ended:
                self.store.delete_files(run.run_id, CHECKPOINTS)
        finished = sorted((run for run in mine if run.status == "FINISHED"), key=lambda run: int(run.tags[SEED_TAG]))
        if finished:
            record.keep_best(self.parent, finished[0])
