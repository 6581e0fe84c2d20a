"""Control loop of a study: ask Optuna for trials, have workers train them, prune, and record the results."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import find_metric, list_metrics
from pipelines.tracking.tags import SELECTED, TRIAL_STATE_TAG, TRIAL_TAG
from sweeps.search.display import SweepDisplay
from sweeps.search.study_run import log_progress
from sweeps.search.trial_runs import RunsBySeed, TrialRuns
from sweeps.search.trial_state import LOSSES, REASON, RUNS, SAME_AS, SECONDS, SEED, params_key
from sweeps.workers.batch import MAX_LOSSES, authoritative_message, end_lost, end_orphan, lost_too_often
from sweeps.workers.display import format_params
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, Pool, WorkerProcess

if TYPE_CHECKING:
    from optuna.trial import Trial

REASON_LENGTH = 2000  # of a trial's user attribute, which MySQL limits


@dataclass
class ActiveTrial:
    """A trial in training.

    Attributes:
        trial: Optuna's trial.
        params: Its configuration; Optuna reads it from the storage each time.
        key: The same as text, see `params_key`.
        started: When it started, by the monotonic clock.
        values: Values of the seeds that have finished.
        runs: Ids of its MLflow runs.
        followers: Later trials of the same configuration, which get its result.
    """

    trial: "Trial"
    params: dict[str, Any]
    key: str
    started: float = field(default_factory=time.monotonic)
    values: dict[int, float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    followers: list["Trial"] = field(default_factory=list)


class Controller:
    """Runs trials until the study has its total, its time is over or the user stops it.

    Args:
        runs: The study and its runs.
        pool: Trains.
        display: What the user sees.
        stacked: Trainings that one process trains together.
    """

    def __init__(self, runs: TrialRuns, pool: Pool, display: SweepDisplay, stacked: int) -> None:
        self._runs, self._study, self._space = runs, runs.study, runs.study.space
        self._pool, self._display, self._stacked = pool, display, stacked
        self._active: dict[int, ActiveTrial] = {}
        self._queue: list[Job] = []  # jobs that wait for a worker
        self._finished: RunsBySeed = {}  # runs of earlier calls, whose values are used instead of training again
        timeout = self._space.timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._is_complete = False  # once the active trials have ended

    def search(self) -> None:
        """End and queue again what an earlier controller has left running, then run trials.

        Raises:
            UserError: No trial can succeed, or the sampler cannot draw from the space.
        """
        self._study.reap()
        self._finished = self._runs.end_orphans()
        while True:
            self._fill()
            is_over = self._pool.stop_requests or self._is_complete or time.monotonic() > self._deadline
            if not self._active and is_over:
                break
            for child, message in self._pool.events(0.25):
                self._on_message(child, message)
            self._study.check_connection()
            self._display.update(self._study, self._pool.children)

    def close(self) -> None:
        """Leave no process, trial or run active, also after an error."""
        self._pool.kill_all()
        for active in list(self._active.values()):
            self._interrupt(active, "stopped")
        self._runs.end_orphans()

    def _fill(self) -> None:
        """Ask for trials while there is room, and give the waiting jobs to the workers."""
        while not self._is_complete and time.monotonic() < self._deadline and self._has_room():
            if trial := self._study.ask():
                self._start(trial)
            else:
                self._is_complete = True
        self._start_jobs()

    def _has_room(self) -> bool:
        if self._pool.stop_requests or not self._pool.free_slots:
            return False
        return len(self._active) < self._pool.workers * self._stacked

    def _start(self, trial: "Trial") -> None:
        """Queue a trial's first seed, unless its configuration has been trained or is in training."""
        params = trial.params
        key = params_key(params)
        same = next((active for active in self._active.values() if active.key == key), None)
        if like := self._study.finished_like(params):
            self._copy_result(trial, like.number)
        elif same is not None:
            same.followers.append(trial)
        else:
            self._active[trial.number] = ActiveTrial(trial, params, key)
            self._next_seed(self._active[trial.number])

    def _copy_result(self, trial: "Trial", number: int) -> None:
        """Record the result of another trial of the same configuration."""
        like = self._study.trial(number)
        for step, value in like.intermediate_values.items():
            trial.report(value, step)
        attributes = {key: value for key, value in like.user_attrs.items() if key == RUNS or key.startswith(SEED)}
        state, result = like.state.name, like.value if like.state.name == "COMPLETE" else None
        self._study.tell(trial.number, state, result, {SAME_AS: number, **attributes})
        self._display.trial_ended(self._study, trial.number, state, 0.0, f"the same as trial {number}")

    def _next_seed(self, active: ActiveTrial) -> None:
        """Queue the next seed of a trial; if all have finished, record their mean."""
        number, params = active.trial.number, active.params
        for seed in range(self._space.seeds):
            if seed in active.values:
                continue
            run = self._finished.get((active.key, seed))
            value = self._value(run.metrics) if run else None
            if run is None or value is None:
                self._queue.append(self._runs.search_job(params, seed, number, stacked=self._stacked > 1))
                return
            self._record_seed(active, seed, value, run.run_id)
        self._end(active, "COMPLETE")

    def _value(self, metrics: Mapping[str, float]) -> float | None:
        """Return the space's metric at the epoch that a run selected."""
        found = find_metric(f"{SELECTED}/{self._space.metric}", metrics)
        return None if found is None else metrics[found]

    def _record_seed(self, active: ActiveTrial, seed: int, value: float, run_id: str) -> None:
        active.values[seed] = value
        active.trial.set_user_attr(f"{SEED}{seed}", value)
        if run_id not in active.runs:
            active.runs.append(run_id)

    def _start_jobs(self) -> None:
        """Start the waiting jobs, spread over the free workers; after a stop, interrupt their trials."""
        if self._pool.stop_requests:
            for job in self._queue:
                self._interrupt(self._active[int(job.tags[TRIAL_TAG])], "stopped")
            self._queue.clear()
        while self._queue and (slots := len(self._pool.free_slots)):
            size = min(self._stacked, math.ceil(len(self._queue) / slots))
            self._pool.start(*self._queue[:size])
            del self._queue[:size]

    def _on_message(self, child: WorkerProcess, message: Message) -> None:
        active = self._active[int(child.job.tags[TRIAL_TAG])]
        kind, *content = authoritative_message(self._runs.store, child, message)
        if kind == "epoch":
            child.answer(self._should_prune(active, child.job.seed, *content))
            return
        if child.run_id:
            active.runs.append(child.run_id)
        if kind == "done":
            self._on_result(active, child, content[0])
        elif kind == "pruned":
            self._runs.mark_pruned(child.run_id, active.params, child.job.seed, active.trial.number)
            self._end(active, "PRUNED")
        elif kind == "lost" and not self._pool.stop_requests:
            self._on_loss(active, child, content[0])
        else:
            self._on_failure(active, child, kind, content[0])

    def _should_prune(self, active: ActiveTrial, seed: int, step: int, value: float) -> bool:
        """Report an epoch of a trial's first seed; return whether the pruner or another program has ended it."""
        from optuna.exceptions import UpdateFinishedTrialError

        if seed != 0:
            return False
        try:
            active.trial.report(value, step)
        except UpdateFinishedTrialError:
            return True
        return bool(active.trial.should_prune())

    def _on_result(self, active: ActiveTrial, child: WorkerProcess, metrics: Mapping[str, float]) -> None:
        value = self._value(metrics)
        if value is None or not math.isfinite(value):
            logged = [key.removeprefix(f"{SELECTED}/") for key in metrics if key.startswith(f"{SELECTED}/")]
            wanted = self._space.metric
            missing = f"metric {wanted}: the experiment logs {list_metrics(logged, wanted)}"
            reason = missing if value is None else f"{self._space.metric} of the selected epoch is {value}"
            self._end(active, "FAIL", reason)
            return
        self._record_seed(active, child.job.seed, value, child.run_id)
        if self._pool.stop_requests and len(active.values) < self._space.seeds:
            self._interrupt(active, "stopped")  # the values of finished seeds are kept
        else:
            self._next_seed(active)

    def _on_loss(self, active: ActiveTrial, child: WorkerProcess, reason: str) -> None:
        """Queue again a trial whose node was lost, at most a few times. If its run ends late, it does not count."""
        number, losses = active.trial.number, active.trial.user_attrs.get(LOSSES, 0) + 1
        end_lost(self._runs.store, child, reason)
        self._display.trial_lost(number, losses, reason)
        if losses == MAX_LOSSES:
            self._end(active, "FAIL", lost_too_often(reason))
            return
        active.trial.set_user_attr(LOSSES, losses)  # the trial that takes its place has it too
        self._interrupt(active, reason)
        if self._space.seeds > 1:  # those that have finished are not trained again
            self._finished = self._runs.finished()

    def _on_failure(self, active: ActiveTrial, child: WorkerProcess, kind: str, reason: str) -> None:
        stopped = self._pool.stop_requests and kind != "refused"
        end_orphan(self._runs.store, child, "KILLED" if stopped else "FAILED", "stopped" if stopped else reason)
        if stopped:
            self._interrupt(active, "stopped")
        elif kind == "refused":  # no trial can succeed
            self._interrupt(active, reason, requeue=False)
            raise UserError(reason)
        else:
            self._end(active, "FAIL", reason)

    def _end(self, active: ActiveTrial, state: str, reason: str = "") -> None:
        """Record a trial's result (COMPLETE, PRUNED, or FAIL with a reason), and those of its followers."""
        number, seconds = active.trial.number, time.monotonic() - active.started
        attributes = {RUNS: active.runs, SECONDS: round(seconds, 1)}
        attributes |= {REASON: reason[:REASON_LENGTH]} if reason else {}
        value = statistics.mean(active.values.values()) if state == "COMPLETE" else None
        self._study.tell(number, state, value, attributes)
        for run_id in active.runs:
            self._runs.store.tag(run_id, TRIAL_STATE_TAG, state)
        del self._active[number]
        details = reason or format_params(active.params)
        with self._study.as_known():
            self._display.trial_ended(self._study, number, state, seconds, details)
        for follower in active.followers:
            if state == "FAIL":
                attributes = {REASON: f"as trial {number}: {reason}"[:REASON_LENGTH]}
                self._study.tell(follower.number, state, None, attributes)
            else:
                self._copy_result(follower, number)
        with self._study.as_known():
            log_progress(self._runs.parent, self._study)
            if state != "FAIL" or not active.values:  # finished seeds of a failed trial may count later
                self._runs.discard_checkpoints(active.runs, number)

    def _interrupt(self, active: ActiveTrial, reason: str, *, requeue: bool = True) -> None:
        """End a trial without a result; it does not count, and its configuration is queued again."""
        del self._active[active.trial.number]
        self._is_complete = False
        self._study.interrupt(active.trial.number, reason, requeue=requeue)
        for follower in active.followers:
            self._study.interrupt(follower.number, reason, requeue=False)
