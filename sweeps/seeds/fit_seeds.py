"""Train one configuration with several seeds, under a summary run that has the mean and spread of each metric."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.experiments import config_arguments
from pipelines.runtime.errors import UserError
from pipelines.tracking.endings import notified
from pipelines.tracking.labels import Labels
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.summary_runs import label
from sweeps.cluster.options import StackSize
from sweeps.cluster.options import make_pool as pool_of
from sweeps.cluster.place import Place
from sweeps.seeds.plan import SeedsPlan, make_plan
from sweeps.seeds.summary import main_mean
from sweeps.seeds.summary_run import open_summary_run, seeds_lock
from sweeps.seeds.training import finished_runs, missing_jobs, summarize_runs
from sweeps.workers.batch import JobResult, explained_loss, graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.pool import Pool

MAX_SEEDS = 1000


@dataclass(frozen=True)
class SeedsResult:
    """Result of training one configuration with several seeds.

    Attributes:
        run_id: Id of the summary run.
        experiment: Name of the MLflow experiment.
        seeds: The seeds.
        name: What was trained, such as "seeds 0 to 4".
        runs: Finished runs in the order of their seeds, with those of earlier calls.
        failed: Results of the jobs of this call that did not finish.
        refused: What the tracking store refused to take of the summary run, and why.
        stop_signal: The signal that stopped the training, or None.
        tracking_uri: URI of the tracking store.
    """

    run_id: str
    experiment: str
    seeds: range
    name: str
    runs: list[StoredRun]
    failed: list[JobResult]
    refused: tuple[str, ...]
    stop_signal: int | None
    tracking_uri: str


def fit_seeds(
    experiment: str | Path | None = None,
    *,
    seeds: int,
    folds: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    stacked: StackSize = 1,
    first_seed: int | None = None,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    labels: Labels | None = None,
    system_metrics: bool = False,
    command: str = "",
    notify: str = "",
    make_pool: Callable[[Path], Pool] | None = None,
) -> SeedsResult:
    """Train one configuration with consecutive seeds, each in its own process, and summarise the runs in another run.

    Seeds of an earlier call that is unfinished, or was to train fewer, are not trained again. A failed seed does not
    affect the others. Ctrl-C and SIGTERM stop the training gracefully, a second one at once. Must be called in the main
    thread.

    Args:
        experiment: Name of an experiment or path of a YAML file; None if the overrides name it.
        seeds: Number of seeds, 1 to 1000.
        folds: Number of folds of the data, of which `seeds` is a multiple: the run of seed s validates on fold s modulo
            `folds`. The test set is opened when all runs are trained.
        workers: Number of trainings in parallel, which share CPU cores and GPUs; see `Place`, as the three below.
        cluster: A Ray cluster on which to train.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        stacked: Models that a worker trains as one; "auto" for as many as fit in memory.
        first_seed: The first seed; None takes the experiment's.
        overrides: Arguments of `litlab fit` that follow, such as ["--model.dropout", "0.3"], without the seed.
        tracking_uri: Database or server of the runs; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        labels: Tags, note and name of the summary run; each run has the tags too.
        system_metrics: Whether to measure the machine during each run; see `Run`.
        command: Recorded as the command of the summary run.
        notify: Command to run in a shell when all has ended; see `notified`.
        make_pool: Makes another pool than one of worker processes, in a folder for its files.

    Raises:
        UserError: A value is invalid, another process trains the same seeds, or the tracking store is lost.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {seeds}: expected 1 to {MAX_SEEDS}")
    labels = labels or Labels()
    arguments = config_arguments(experiment, overrides, tracking_uri)
    place = Place(cluster, workers, cpus, gpus)
    make_pool = make_pool or (lambda folder: pool_of(place, folder, system_metrics=system_metrics))
    with tempfile.TemporaryDirectory(prefix="litlab-seeds-") as folder, make_pool(Path(folder)) as pool:
        pool.warm_up()
        plan = make_plan(pool, arguments, seeds, first_seed, folds, stacked)
        store = Store(plan.facts["tracking_uri"])
        pool.check_store(store)
        with seeds_lock(store, plan), graceful_shutdown(pool) as signals:
            parent = open_summary_run(store, plan, command)
            label(parent, labels)
            runs = list[StoredRun]()
            with notified(notify, parent, plan.experiment, lambda: main_mean(runs)):
                results = _train(pool, store, parent, plan, labels, runs)
    return SeedsResult(
        run_id=parent.run_id,
        experiment=plan.experiment,
        seeds=plan.seeds,
        name=plan.name,
        runs=runs,
        failed=[result for result in results if result.status != "FINISHED"],
        refused=tuple(parent.refused),
        stop_signal=signals[0] if signals else None,
        tracking_uri=store.uri,
    )


@explained_loss()
def _train(
    pool: Pool, store: Store, parent: Run, plan: SeedsPlan, labels: Labels, runs: list[StoredRun]
) -> list[JobResult]:
    """Train the missing seeds and end the summary run; return the results of the jobs, and add all finished runs.

    Raises:
        UserError: The tracking store is lost.
    """
    status, reason = "FAILED", "an error ended it"
    try:
        done = finished_runs(store, parent.run_id, plan.seeds)
        jobs = missing_jobs(store, parent, plan, labels, done)
        with LiveDisplay() as display:
            title, size = plan.experiment, plan.stacked
            results = run_jobs(pool, jobs, store, display, title=title, reused=len(done), stacked=size)
        runs += finished_runs(store, parent.run_id, plan.seeds)
        if plan.folds is not None and len(runs) == len(plan.seeds) and not pool.stop_requests:
            _add_tests(pool, runs)
            runs[:] = finished_runs(store, parent.run_id, plan.seeds)
        if pool.stop_requests < 2:
            summarize_runs(parent, plan, runs)
        status, reason = _final_status(pool, results)
    finally:
        parent.finish(status, reason)
    return results


def _add_tests(pool: Pool, runs: Sequence[StoredRun]) -> None:
    """Test the runs of all folds, until the user stops it."""
    from pipelines.training.late_test import add_test

    for run in runs:
        if not pool.stop_requests:
            add_test(run)


def _final_status(pool: Pool, results: Sequence[JobResult]) -> tuple[str, str]:
    """Return the status of the summary run, and the reason."""
    if pool.stop_requests:
        return "KILLED", "stopped"
    failed = sorted((result.job.seed, result.reason) for result in results if result.status != "FINISHED")
    return ("FAILED" if failed else "FINISHED"), "; ".join(f"seed {seed}: {reason}" for seed, reason in failed)
