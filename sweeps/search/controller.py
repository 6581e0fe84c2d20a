"""The one writer of a study: asks Optuna for trials, has workers train them, prunes, and reports the results."""

import math
import time

from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import SELECTED, TRIAL_TAG
from sweeps.search.active_trials import ActiveTrial, ActiveTrials
from sweeps.search.child_runs import ChildRuns
from sweeps.search.context import SearchContext
from sweeps.search.heartbeat import BEAT_S, called
from sweeps.search.trial_state import CONTROLLER
from sweeps.workers.batch import authoritative_message, end_orphan
from sweeps.workers.pool import Message, WorkerProcess

PAUSE_S = 2.0  # before asking for a trial again, when there was none


class Controller:
    """Runs trials until the study has its total, its time is over or the user stops it.

    Args:
        context: The study and what its trainings need.

    Attributes:
        runs: The runs of the trials.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context, self._study, self._pool = context, context.study, context.pool
        self.runs = ChildRuns(context.store, context.parent.run_id, context.study)
        self._trials = ActiveTrials(context, self.runs)
        timeout = context.space.timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._ask_after = self._reclaim_after = 0.0
        self._is_complete = self._has_reported_waiting = False

    def search(self) -> None:
        """Run trials. A controller that gets none waits for those of others, which may die and leave them.

        Raises:
            UserError: No trial can succeed, or the sampler cannot draw from the space.
        """
        self._study.reap()
        self._trials.finished = self.runs.end_orphans(self._study.others())
        while True:
            self._fill()
            is_over = self._context.stop_requests or self._is_complete or time.monotonic() > self._deadline
            if not self._trials and is_over:
                break
            for child, message in self._pool.events(0.25):
                self._on_message(child, message)
            self._reclaim_stale()
            self._context.display.update(self._study, self._pool.children)

    def close(self) -> None:
        """Leave no process, trial or run active, whatever has happened."""
        self._pool.kill_all()
        self._trials.interrupt_all()
        self.runs.end_orphans(self._study.others())

    def _reclaim_stale(self) -> None:
        """Every few seconds, queue again the trials that dead controllers have left."""
        if time.monotonic() > self._reclaim_after:
            self._reclaim_after = time.monotonic() + BEAT_S
            lost = self._study.reap()
            for number in lost:
                who = called(self._study.trials()[number].user_attrs.get(CONTROLLER, "its controller"))
                self._context.display.print(f"trial {number:>3}  interrupted: {who} died; the trial is queued again")
            if lost:
                self._trials.finished = self.runs.end_orphans(self._study.alive())

    def _fill(self) -> None:
        """Ask for trials while there is room, and give the waiting jobs to the workers."""
        while self._ask_after < time.monotonic() < self._deadline and self._has_room():
            trial = self._study.ask()
            if trial is not None:
                self._trials.start(trial)
                continue
            self._ask_after = time.monotonic() + PAUSE_S
            self._is_complete = self._study.n_finished() >= self._context.space.total
            if not (self._trials or self._is_complete or self._has_reported_waiting):
                self._has_reported_waiting = True
                self._context.display.print(
                    f"{self._study.name}: other controllers have the last trials; waiting in case one of them dies"
                )
        self._start_jobs()

    def _has_room(self) -> bool:
        if self._context.stop_requests or not self._pool.free_slots:
            return False
        return len(self._trials) < self._pool.workers * self._context.stacked

    def _start_jobs(self) -> None:
        """Start the waiting jobs, spread over the free workers; after a stop, interrupt their trials."""
        queue, stacked = self._trials.queue, self._context.stacked
        while queue and (self._context.stop_requests or self._pool.free_slots):
            size = min(stacked, math.ceil(len(queue) / max(1, len(self._pool.free_slots))))
            jobs = queue[:size]
            del queue[:size]
            if self._context.stop_requests:
                for job in jobs:
                    self._trials.interrupt(self._trials[int(job.tags[TRIAL_TAG])], "stopped")
            elif stacked > 1:
                self._pool.start_stack(jobs)
            else:
                self._pool.start(jobs[0])

    def _on_message(self, child: WorkerProcess, message: Message) -> None:
        active = self._trials[int(child.job.tags[TRIAL_TAG])]
        kind, *content = authoritative_message(self._context.store, child, message)
        if kind == "epoch":
            child.answer(self._should_prune(active, child.job.seed, *content))
            return
        if child.run_id:
            active.runs.append(child.run_id)
        if kind == "done":
            self._on_value(active, child, content[0].get(f"{SELECTED}/{self._context.space.metric}"))
        elif kind == "pruned":
            self._trials.end(active, "PRUNED")
        else:
            self._on_failure(active, child, kind, content[0])

    def _on_failure(self, active: ActiveTrial, child: WorkerProcess, kind: str, reason: str) -> None:
        store = self._context.store
        if kind == "refused":  # no trial can succeed
            end_orphan(store, child, "FAILED", reason)
            self._trials.interrupt(active, reason, requeue=False)
            raise UserError(reason)
        if self._context.stop_requests:
            end_orphan(store, child, "KILLED", "stopped")
            self._trials.interrupt(active, "stopped")
        else:
            end_orphan(store, child, "FAILED", reason)
            self._trials.end(active, "FAIL", reason)

    def _should_prune(self, active: ActiveTrial, seed: int, step: int, value: float) -> bool:
        """Report an epoch of a trial's first seed.

        Returns:
            Whether the pruner or another controller has ended the trial.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if seed != 0:
            return False
        try:
            active.trial.report(value, step)
        except UpdateFinishedTrialError:
            return True
        return bool(active.trial.should_prune())

    def _on_value(self, active: ActiveTrial, child: WorkerProcess, value: float | None) -> None:
        space = self._context.space
        if value is None or not math.isfinite(value):
            self._trials.end(active, "FAIL", f"{space.metric} of the selected epoch is {value}")
            return
        self._trials.record_seed(active, child.job.seed, value, child.run_id)
        if self._context.stop_requests and len(active.values) < space.seeds:
            self._trials.interrupt(active, "stopped")  # the values of finished seeds are kept
        else:
            self._trials.next_seed(active)
