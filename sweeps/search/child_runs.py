"""The MLflow runs of a study's trials: end those without a process, find reusable ones, delete their checkpoints."""

from collections.abc import Collection, Iterable

from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    CONFIGURATION_TAG,
    CONTROLLER_TAG,
    REASON_TAG,
    SEED_TAG,
    STAGE_TAG,
    TRIAL_STATE_TAG,
    TRIAL_TAG,
)
from sweeps.search.study import Study
from sweeps.search.trial_state import REASON, is_counted, params_key

CHECKPOINTS = "checkpoints"
RunsBySeed = dict[tuple[str, int], StoredRun]  # by configuration and seed


class ChildRuns:
    """The runs below a study's own run.

    Args:
        store: The tracking store.
        parent_id: Id of the study's own run.
        study: The study.
    """

    def __init__(self, store: Store, parent_id: str, study: Study) -> None:
        self._store, self._parent_id, self._study = store, parent_id, study

    def end_orphans(self, alive: Collection[str]) -> RunsBySeed:
        """End the RUNNING runs of all controllers but these; return the finished runs, which need no new training."""
        finished = []
        for run in self._store.children(self._parent_id):
            if run.status == "RUNNING" and run.tags.get(CONTROLLER_TAG) not in alive:
                self._store.end(run.run_id, *self._orphan_status(run))
            elif (
                run.status == "FINISHED"
                and run.tags.get(STAGE_TAG) == "search"
                and run.tags.get(TRIAL_STATE_TAG) != "FAIL"
            ):
                finished.append(run)
        return by_seed(finished)

    def _orphan_status(self, run: StoredRun) -> tuple[str, str]:
        """Return status and reason of a run that its own process could not end: its trial's, if that has failed."""
        trial = next((trial for trial in self._study.trials() if str(trial.number) == run.tags.get(TRIAL_TAG)), None)
        if trial is not None and trial.state.name == "FAIL" and is_counted(trial):
            return "FAILED", trial.user_attrs.get(REASON, "its process died")
        return "KILLED", "its process died"

    def set_trial_state(self, run_ids: Collection[str], state: str) -> None:
        """Tag runs with the state of their trial."""
        for run_id in run_ids:
            self._store.tag(run_id, TRIAL_STATE_TAG, state)

    def set_reason(self, run_ids: Collection[str], reason: str) -> None:
        """Tag runs with the reason of their end."""
        for run_id in run_ids:
            self._store.tag(run_id, REASON_TAG, reason)

    def discard_checkpoints(self, run_ids: Collection[str], trial: int) -> None:
        """Delete the checkpoints of a trial, unless it is the best so far or all checkpoints are kept."""
        best = self._study.best()
        if self._study.space.keep == "best" and (best is None or best.number != trial):
            for run_id in run_ids:
                self._store.delete_files(run_id, CHECKPOINTS)

    def prune_checkpoints(self) -> StoredRun | None:
        """Delete the checkpoints of trials that were the best only for a while.

        Those of interrupted trials stay: their finished seeds will count.

        Returns:
            The best trial's finished run with the lowest seed, if there is one.
        """
        best = self._study.best()
        if best is None:
            return None
        children = [run for run in self._store.children(self._parent_id) if run.tags.get(STAGE_TAG) == "search"]
        of_best = [run for run in children if run.tags[CONFIGURATION_TAG] == params_key(best.params)]
        ended = {params_key(trial.params) for trial in self._study.trials() if is_counted(trial)}
        for run in children:
            if self._study.space.keep == "best" and run not in of_best and run.tags[CONFIGURATION_TAG] in ended:
                self._store.delete_files(run.run_id, CHECKPOINTS)
        finished = [run for run in of_best if run.status == "FINISHED"]
        return min(finished, key=lambda run: int(run.tags[SEED_TAG]), default=None)


def by_seed(runs: Iterable[StoredRun]) -> RunsBySeed:
    """Index runs by configuration and seed; of equals the last is taken."""
    return {(run.tags[CONFIGURATION_TAG], int(run.tags[SEED_TAG])): run for run in runs}
