"""The trials that this controller is training: their seeds, the jobs that wait for a worker, and their ends."""

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.tracking.tags import SELECTED
from sweeps.search.child_runs import ChildRuns, RunsBySeed
from sweeps.search.context import SearchContext
from sweeps.search.heartbeat import SILENT_S
from sweeps.search.study_run import log_progress
from sweeps.search.trial_state import REASON, RUNS, SAME_AS, SECONDS, SEED, params_key
from sweeps.workers.display import format_params
from sweeps.workers.job import Job

if TYPE_CHECKING:
    from optuna.trial import Trial

REASON_LENGTH = 2000  # of a trial's user attribute, which MySQL limits
LEASE_LOST = f"no heartbeat for {SILENT_S:.0f} s; the trial was reassigned"


@dataclass
class ActiveTrial:
    """A trial in training.

    Attributes:
        trial: Optuna's trial.
        started: When it started, by the monotonic clock.
        values: Values of the seeds that have finished.
        runs: Ids of its MLflow runs.
        followers: Later trials of the same configuration, which get its result.
    """

    trial: "Trial"
    started: float
    values: dict[int, float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    followers: list["Trial"] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class ActiveTrials:
    """The active trials of a controller.

    Args:
        context: The study and what its trainings need.
        runs: The runs of its trials.

    Attributes:
        queue: Jobs that wait for a worker.
        finished: Runs of earlier calls, whose values are used instead of training again.
    """

    def __init__(self, context: SearchContext, runs: ChildRuns) -> None:
        self._study, self._space = context.study, context.space
        self._context, self._runs = context, runs
        self._active: dict[int, ActiveTrial] = {}
        self.queue: list[Job] = []
        self.finished: RunsBySeed = {}

    def __len__(self) -> int:
        return len(self._active)

    def __getitem__(self, number: int) -> ActiveTrial:
        return self._active[number]

    def start(self, trial: "Trial") -> None:
        """Queue a trial's first seed, unless its configuration has been trained or is in training."""
        like = self._study.finished_like(trial.params)
        key = params_key(trial.params)
        same = next((active for active in self._active.values() if params_key(active.trial.params) == key), None)
        if like is not None:
            self._copy_result(trial, like.number)
        elif same is not None:
            same.followers.append(trial)
        else:
            active = self._active[trial.number] = ActiveTrial(trial, time.monotonic())
            self.next_seed(active)

    def _copy_result(self, trial: "Trial", number: int) -> None:
        """Report the result of another trial of the same configuration."""
        like = self._study.trials()[number]
        for step, value in like.intermediate_values.items():
            trial.report(value, step)
        attributes = {key: value for key, value in like.user_attrs.items() if key == RUNS or key.startswith(SEED)}
        result = like.value if like.state.name == "COMPLETE" else None
        self._study.tell(trial.number, like.state.name, result, {SAME_AS: number, **attributes})
        self._context.display.trial_ended(
            self._study, trial.number, like.state.name, 0.0, f"the same as trial {number}"
        )

    def next_seed(self, active: ActiveTrial) -> None:
        """Queue the next seed of a trial; if all have finished, report their mean."""
        params = active.trial.params
        for seed in range(self._space.seeds):
            if seed in active.values:
                continue
            run = self.finished.get((params_key(params), seed))
            value = run.metrics.get(f"{SELECTED}/{self._space.metric}") if run else None
            if run is None or value is None:
                self.queue.append(self._context.search_job(params, seed, active.trial.number))
                return
            self.record_seed(active, seed, value, run.run_id)
        self.end(active, "COMPLETE")

    def record_seed(self, active: ActiveTrial, seed: int, value: float, run_id: str) -> None:
        """Record the value of a seed that has finished."""
        active.values[seed] = value
        active.trial.set_user_attr(f"{SEED}{seed}", value)
        if run_id not in active.runs:
            active.runs.append(run_id)

    def end(self, active: ActiveTrial, state: str, reason: str = "") -> None:
        """Report a trial's result, and those of its followers.

        Args:
            active: The trial.
            state: COMPLETE, PRUNED or FAIL.
            reason: Why it failed.
        """
        number = active.trial.number
        attributes = {RUNS: active.runs, SECONDS: round(active.seconds, 1)}
        attributes |= {REASON: reason[:REASON_LENGTH]} if reason else {}
        value = statistics.mean(active.values.values()) if state == "COMPLETE" else None
        if not self._study.tell(number, state, value, attributes):
            self._lose_lease(active)
            return
        self._runs.set_trial_state(active.runs, state)
        del self._active[number]
        self._context.display.trial_ended(
            self._study, number, state, active.seconds, reason or format_params(active.trial.params)
        )
        for follower in active.followers:
            if state == "FAIL":
                attributes = {REASON: f"as trial {number}: {reason}"[:REASON_LENGTH]}
                self._study.tell(follower.number, state, None, attributes)
            else:
                self._copy_result(follower, number)
        log_progress(self._context.parent, self._study)
        self._runs.discard_checkpoints(active.runs, number)

    def _lose_lease(self, active: ActiveTrial) -> None:
        """Drop a trial that other controllers have ended and queued again, because this one seemed dead."""
        self._context.display.print(f"trial {active.trial.number:>3}  lost: {LEASE_LOST}")
        self._runs.set_reason(active.runs, LEASE_LOST)
        self.interrupt(active, LEASE_LOST)

    def interrupt(self, active: ActiveTrial, reason: str, *, requeue: bool = True) -> None:
        """End a trial without a result; it does not count, and its configuration is queued again."""
        del self._active[active.trial.number]
        for trial in (active.trial, *active.followers):
            self._study.interrupt(trial.number, reason, requeue=requeue and trial is active.trial)

    def interrupt_all(self) -> None:
        """Interrupt all active trials."""
        for active in list(self._active.values()):
            self.interrupt(active, "stopped")
