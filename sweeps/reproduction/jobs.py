"""The runs of published jobs: train what is neither measured nor in the tracking store."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.runtime.environment import cpu_count
from pipelines.tracking.store import Store
from pipelines.tracking.tags import REPRODUCES_TAG
from sweeps.reproduction.claims import Plan
from sweeps.reproduction.measured import MeasuredRuns, PlannedRun
from sweeps.workers.batch import JobResult, graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

QUICK_EXPERIMENT = "reproduce-quick"  # MLflow experiment of all runs of the quick tier
MAX_WORKERS = 4


def default_workers() -> int:
    """Return the default number of trainings in parallel: one on a GPU, else one for each CPU core, at most 4."""
    import torch

    return 1 if torch.cuda.is_available() else min(cpu_count(), MAX_WORKERS)


def run_missing(
    plan: Plan,
    measured: MeasuredRuns,
    store: Store,
    pool: Pool,
    display: LiveDisplay,
    *,
    data_dir: str | Path | None,
) -> tuple[Mapping[str, str], int | None]:
    """Run what is missing of a plan. What finishes is measured at once.

    Returns:
        Why a job of this call failed, by label; the signal that stopped the trainings, or None.

    Raises:
        UserError: The tracking store is lost, or the CSV files cannot be written.
    """
    failures: dict[str, str] = {}
    reused = len(measured.planned) - len(measured.missing)

    def add(result: JobResult) -> None:
        if result.status == "FINISHED" and plan.tier != "quick":
            measured.add_new(result.job.tags[REPRODUCES_TAG], str(result.job.seed), result.job.experiment)

    with graceful_shutdown(pool) as signals:
        for title, runs in ((f"{plan.tier} tier", _trainings), (f"explanations, {plan.tier} tier", _explanations)):
            missing = [_worker_job(plan.tier, run, measured, store, data_dir) for run in runs(measured)]
            if signals or not missing:
                continue
            results = run_jobs(pool, missing, store, display, title=title, reused=reused, on_result=add)
            failed = [result for result in results if result.status != "FINISHED"]
            failures |= {result.job.tags[REPRODUCES_TAG]: result.reason for result in failed}
            reused += len(missing)
            measured.read_store()
    return failures, signals[0] if signals else None


def _trainings(measured: MeasuredRuns) -> list[PlannedRun]:
    """Return the missing trainings and baselines, and those that missing explanations need, if they are not stored."""
    needed = {
        (run.job.explains, run.seed)
        for run in measured.missing
        if run.job.explains and measured.stored(run.job.explains, run.seed) is None
    }
    needed |= {(run.job.label, run.seed) for run in measured.missing if not run.job.explains}
    return [run for run in measured.planned if (run.job.label, run.seed) in needed]


def _explanations(measured: MeasuredRuns) -> list[PlannedRun]:
    """Return the missing explanations of stored runs."""
    missing = [run for run in measured.missing if run.job.explains]
    return [run for run in missing if measured.stored(run.job.explains, run.seed) is not None]


def _worker_job(tier: str, run: PlannedRun, measured: MeasuredRuns, store: Store, data_dir: str | Path | None) -> Job:
    job, arguments = run.job, run.job.arguments_with(run.seed)
    if data_dir is not None and measured.identities[job.label](run.seed).reads_files:
        arguments += ["--data.data_dir", str(data_dir)]
    name = f"{arguments[1]}-{arguments[0]}" if job.verb == "baseline" else arguments[0]
    if job.explains and (explained := measured.stored(job.explains, run.seed)):
        arguments.insert(1, explained.run_id)
        name = explained.experiment
    return Job(
        arguments=arguments,
        seed=int(run.seed),
        experiment=QUICK_EXPERIMENT if tier == "quick" else name,  # an explanation is in that of its run
        tracking_uri=store.uri,
        run_name=f"{job.label} seed={run.seed}",
        tags={REPRODUCES_TAG: job.label},
        test=True,
        verb=job.verb,
    )
