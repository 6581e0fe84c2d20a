"""Run a study from its first trial to its results: search, then confirm the best configuration, log the results."""

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking.tags import CONFIGURATION_TAG, CONFIRM, was_lost
from sweeps.search.controller import Controller
from sweeps.search.display import SweepDisplay
from sweeps.search.study_run import copy_best, log_summary
from sweeps.search.trial_runs import RunsBySeed, TrialRuns, by_seed
from sweeps.search.trial_state import params_key
from sweeps.search.verdict import Confirmed
from sweeps.workers.batch import run_jobs
from sweeps.workers.pool import Pool

NO_TRIAL = "-"


def run_study(runs: TrialRuns, pool: Pool, display: SweepDisplay, stacked: int) -> Confirmed:
    """Search, then confirm. Also after an error, nothing is left active, and the study's run has the results so far.

    Returns:
        The finished runs on fresh seeds.

    Raises:
        UserError: The tracking server or the study's database is lost, or no trial can succeed.
    """
    from mlflow.exceptions import MlflowException
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _search_and_confirm(runs, pool, display, stacked)
    except (MlflowException, StorageInternalError, SQLAlchemyError) as error:
        reason = first_line(error.__cause__ or error)  # Optuna's own message has less than its cause
        raise UserError(
            f"Lost the tracking server or study database. Run the same command again to continue. ({reason})"
        ) from error


def _search_and_confirm(runs: TrialRuns, pool: Pool, display: SweepDisplay, stacked: int) -> Confirmed:
    controller, study = Controller(runs, pool, display, stacked), runs.study
    status, confirmed = "FAILED", Confirmed()
    try:
        controller.search()
        if best := runs.prune_checkpoints():
            copy_best(runs.parent, best, with_checkpoint=study.space.keep != "none")
        confirmed = _confirm(runs, pool, display)
        status = "KILLED" if pool.stop_requests else "FINISHED"
    finally:
        _finish(controller, runs, pool, status, confirmed)
    return confirmed


def _finish(controller: Controller, runs: TrialRuns, pool: Pool, status: str, confirmed: Confirmed) -> None:
    """End everything that is active, log the results, and end the study's run."""
    try:
        controller.close()
        if pool.stop_requests < 2:
            log_summary(runs.parent, runs.study, confirmed)
    finally:
        runs.parent.finish(status, "stopped" if pool.stop_requests else "")


def _confirm(runs: TrialRuns, pool: Pool, display: SweepDisplay) -> Confirmed:
    """Train and test the best configuration and the experiment's own, once per seed that the search has not used.

    Only these runs are tested. Those that exist are not trained again, and after a stop none is.

    Returns:
        The finished runs of "best" and "default", including those of earlier calls.
    """
    study, space = runs.study, runs.study.space
    best = study.best()
    if best is None or not space.confirm:
        return {}
    trials = {"best": str(best.trial), "default": NO_TRIAL}
    settings = {"best": space.settings(best.params), "default": space.settings(study.default_point)}
    keys = {label: params_key(values) for label, values in settings.items()}
    if keys["best"] == keys["default"]:
        del keys["default"]
    seeds = range(space.seeds, space.seeds + space.confirm)
    if not pool.stop_requests:
        existing = _confirming(runs)
        jobs = [runs.confirm_job(settings[label], seed, label, trials[label]) for seed in seeds for label in keys]
        missing = [job for job in jobs if (job.tags[CONFIGURATION_TAG], job.seed) not in existing]
        run_jobs(pool, missing, runs.store, display, title=f"confirm {study.name}", check=study.check_connection)
    finished = _confirming(runs)
    return {label: [finished[key, seed] for seed in seeds if (key, seed) in finished] for label, key in keys.items()}


def _confirming(runs: TrialRuns) -> RunsBySeed:
    return by_seed(run for run in runs.of_stage(CONFIRM) if run.status == "FINISHED" and not was_lost(run.tags))
