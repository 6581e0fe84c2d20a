"""The MLflow runs of a study: the jobs that create them, those without a process, and their checkpoints."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COLOR_TAG,
    CONFIGURATION_TAG,
    CONFIRM,
    CONTROLLER_TAG,
    NAME_TAG,
    PARENT_RUN_TAG,
    SEARCH,
    SEED_TAG,
    STAGE_TAG,
    STUDY_TAG,
    TRIAL_STATE_TAG,
    TRIAL_TAG,
)
from sweeps.search.selection import selects_by_metric
from sweeps.search.space import canonical_name
from sweeps.search.study import Study
from sweeps.search.trial_state import INTERRUPTED, REASON, SEED, params_key, seed_values
from sweeps.workers.display import format_params
from sweeps.workers.job import Job, as_arguments

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

CHECKPOINTS = "checkpoints"
MAX_NAME = 200  # characters of a run's name
PRUNED_COLOR = "#8a8a8a"  # in the MLflow UI, whose status of a pruned run is KILLED, with a red cross
RunsBySeed = dict[tuple[str, int], StoredRun]  # by configuration and seed


@dataclass(frozen=True)
class TrialRuns:
    """The runs below a study's own run.

    Attributes:
        study: The study.
        parent: The study's own run.
        arguments: The experiment, and the keys that are the same in all trials, as on the command line.
        devices: GPUs per training, where there are any.
        tags: Tags of each run, besides litlab's.
        selects: Whether the arguments name the metric that selects epochs, see `selection_arguments`.
    """

    study: Study
    parent: Run
    arguments: list[str]
    devices: int
    tags: Mapping[str, str] = field(default_factory=dict)
    selects: bool = False

    @property
    def store(self) -> Store:
        return self.parent.store

    @cached_property
    def experiment(self) -> str:
        """Name of the study's MLflow experiment."""
        return self.store.find(self.parent.run_id).experiment

    def search_job(self, params: Mapping[str, Any], seed: int, trial: int, *, stacked: bool) -> Job:
        """Return the training of a trial with one of its seeds."""
        space = self.study.space
        tags = {STAGE_TAG: SEARCH, TRIAL_TAG: str(trial), CONFIGURATION_TAG: params_key(params)}
        pruner = canonical_name(space.pruner)
        options = {"pruner": "" if pruner == "none" else pruner, "stacked": stacked}
        return self._job(space.settings(params), seed, self._name(params, seed, trial), tags, **options)

    def _name(self, params: Mapping[str, Any], seed: int, trial: int, state: str = "") -> str:
        """Return the name of a trial's run: "3 lr=0.01 dropout=0.2"; the MLflow UI shows 22 characters."""
        seed_part = f"seed={seed}" if self.study.space.seeds > 1 else ""
        return " ".join(filter(None, [str(trial), state, seed_part, format_params(params, " ")]))[:MAX_NAME]

    def confirm_job(self, settings: dict[str, Any], seed: int, label: str, trial: str) -> Job:
        """Return the training of a configuration on a fresh seed, with the test at its end."""
        tags = {STAGE_TAG: CONFIRM, TRIAL_TAG: trial, CONFIGURATION_TAG: params_key(settings)}
        return self._job(settings, seed, f"confirm {label} seed {seed}", tags, test=True)

    def _job(self, settings: dict[str, Any], seed: int, name: str, tags: dict[str, str], **options: Any) -> Job:
        tags |= {PARENT_RUN_TAG: self.parent.run_id, STUDY_TAG: self.study.name, CONTROLLER_TAG: self.study.controller}
        return Job(
            arguments=[*self.arguments, *as_arguments(settings), *self._kept],
            seed=seed,
            experiment=self.experiment,
            tracking_uri=self.store.uri,
            run_name=name,
            tags={**self.tags, **tags},
            metric=self.study.space.metric,
            selects=self.selects,
            folds=self.study.space.folds,
            breaks_ties=selects_by_metric(self.study.optuna),
            devices=self.devices,
            values=settings,
            **options,
        )

    def mark_pruned(self, run_id: str, params: Mapping[str, Any], seed: int, trial: int) -> None:
        """Have the MLflow UI show the run of a pruned trial in grey, and named so."""
        self.store.tag(run_id, COLOR_TAG, PRUNED_COLOR)
        self.store.tag(run_id, NAME_TAG, self._name(params, seed, trial, "(pruned)"))

    @property
    def _kept(self) -> list[str]:
        """The argument with which each run deletes its checkpoints itself; which trial is the best shows later."""
        return ["--keep=none"] if self.study.space.keep == "none" else []

    def of_stage(self, stage: str) -> list[StoredRun]:
        """Return the runs of a stage, oldest first."""
        return [run for run in self.store.children(self.parent.run_id) if run.tags.get(STAGE_TAG) == stage]

    def end_orphans(self) -> RunsBySeed:
        """End the runs that are RUNNING without a process; return the finished runs, which need no new training.

        Called while nothing is training. Runs of other programs below the study's run are left as they are.
        """
        for run in self.store.children(self.parent.run_id):
            if run.status == "RUNNING" and CONTROLLER_TAG in run.tags:
                self.store.end(run.run_id, *self._orphan_status(run))
        return self.finished()

    def finished(self) -> RunsBySeed:
        """Return the finished runs of the search that count, by configuration and seed."""
        searched = (run for run in self.of_stage(SEARCH) if run.status == "FINISHED")
        trials = self.study.trials()
        return by_seed(run for run in searched if run.tags.get(TRIAL_STATE_TAG) != "FAIL" or _has_value(run, trials))

    def _orphan_status(self, run: StoredRun) -> tuple[str, str]:
        """Return FAILED and the trial's reason if the trial of a run has failed, else KILLED."""
        trial = _trial_of(run, self.study.trials())
        if trial is not None and trial.state.name == "FAIL" and INTERRUPTED not in trial.user_attrs:
            return "FAILED", trial.user_attrs.get(REASON, "its process died")
        return "KILLED", "its process died"

    def discard_checkpoints(self, run_ids: Collection[str], trial: int) -> None:
        """Delete the checkpoints of a trial, unless it is the best so far or all checkpoints are kept."""
        best = self.study.best()
        if self.study.space.keep == "best" and (best is None or best.trial != trial):
            for run_id in run_ids:
                self.store.delete_files(run_id, CHECKPOINTS)

    def prune_checkpoints(self) -> StoredRun | None:
        """Delete the checkpoints of trials that were the best only for a while.

        Those of interrupted trials stay, and of failed ones with finished seeds: these seeds will count.

        Returns:
            The best trial's finished run with the lowest seed, if there is one.
        """
        best = self.study.best()
        if best is None:
            return None
        runs, own = self.of_stage(SEARCH), params_key(best.params)
        counted = (trial for trial in self.study.counted() if trial.state.name != "FAIL" or not seed_values(trial))
        ended = {params_key(trial.params) for trial in counted}
        for run in runs:
            if self.study.space.keep == "best" and run.tags[CONFIGURATION_TAG] in ended - {own}:
                self.store.delete_files(run.run_id, CHECKPOINTS)
        finished = [run for run in runs if run.tags[CONFIGURATION_TAG] == own and run.status == "FINISHED"]
        return min(finished, key=lambda run: int(run.tags[SEED_TAG]), default=None)


def _trial_of(run: StoredRun, trials: "Sequence[FrozenTrial]") -> "FrozenTrial | None":
    """Return the trial of a run, if the study has it."""
    return next((trial for trial in trials if str(trial.number) == run.tags.get(TRIAL_TAG)), None)


def _has_value(run: StoredRun, trials: "Sequence[FrozenTrial]") -> bool:
    """Return whether the trial of a run has a value of the run's seed."""
    trial = _trial_of(run, trials)
    return trial is not None and f"{SEED}{run.tags.get(SEED_TAG)}" in trial.user_attrs


def by_seed(runs: Iterable[StoredRun]) -> RunsBySeed:
    """Index runs by configuration and seed; of equals the last is taken."""
    return {(run.tags[CONFIGURATION_TAG], int(run.tags[SEED_TAG])): run for run in runs}
