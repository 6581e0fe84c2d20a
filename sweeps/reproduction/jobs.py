"""Run the published jobs that have no finished run yet: first trainings and baselines, then explanations of them."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.runtime.environment import cpu_count
from pipelines.tracking.store import Store
from pipelines.tracking.tags import REPRODUCES_TAG
from sweeps.reproduction.claims import Plan, PublishedJob
from sweeps.reproduction.finished_runs import Runs, find_finished_runs, identify_jobs
from sweeps.workers.batch import graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

QUICK_EXPERIMENT = "reproduce-quick"  # MLflow experiment of all runs of the quick tier
MAX_WORKERS = 4


def default_workers() -> int:
    """Return the default number of trainings in parallel: one on a GPU, else one for each CPU core, at most 4."""
    import torch

    return 1 if torch.cuda.is_available() else min(cpu_count(), MAX_WORKERS)


def run_missing_jobs(
    plan: Plan, store: Store, pool: Pool, *, seeds: int, train: bool, data_dir: str | Path | None
) -> tuple[Runs, Mapping[str, str], int | None]:
    """Run a plan's jobs with those seeds that have no finished run.

    Args:
        plan: The jobs.
        store: Tracking store.
        pool: Trains.
        seeds: Number of seeds, from 0.
        train: Whether to run what is missing.
        data_dir: Folder of MNIST and CIFAR-10, or None.

    Returns:
        All finished runs, with those that existed before; why a job of this call failed, by label; the signal that
        stopped the trainings, or None.

    Raises:
        UserError: A command is invalid, or the tracking store is lost.
    """
    if train:
        pool.warm_up()
    identities = identify_jobs(plan.jobs.values())
    runs = find_finished_runs(store, identities, seeds)
    # All jobs with the first seed before the second; deterministic jobs have one.
    expected = [(job, seed) for seed in range(seeds) for job in plan.jobs.values() if job.is_stochastic or seed == 0]
    reused = sum(str(seed) in runs[job.label] for job, seed in expected)
    failures: dict[str, str] = {}
    with LiveDisplay() as display, graceful_shutdown(pool) as signals:
        display.print(f"{plan.tier} tier, {seeds} seeds: {len(expected)} runs, {reused} of them are already finished")
        if plan.tier == "quick":
            display.print("on data that come with litlab: digits instead of MNIST and CIFAR-10, which --tier full uses")
        for explaining in (False, True):  # explanations need the runs
            missing = [
                _worker_job(plan.tier, job, seed, runs, store, data_dir if identities[job.label].reads_files else None)
                for job, seed in expected
                if bool(job.explains) == explaining
                and str(seed) not in runs[job.label]
                and (not job.explains or str(seed) in runs[job.explains])
            ]
            if not train or signals or not missing:
                continue
            title = f"explanations, {plan.tier} tier" if explaining else f"{plan.tier} tier"
            results = run_jobs(pool, missing, store, display, title=title, reused=reused)
            failures |= {it.job.tags[REPRODUCES_TAG]: it.reason for it in results if it.status != "FINISHED"}
            reused += len(missing)
            runs = find_finished_runs(store, identities, seeds)
    return runs, failures, signals[0] if signals else None


def _worker_job(tier: str, job: PublishedJob, seed: int, runs: Runs, store: Store, data_dir: str | Path | None) -> Job:
    arguments = job.arguments + ([] if data_dir is None else ["--data.data_dir", str(data_dir)])
    if job.explains:
        arguments.insert(1, runs[job.explains][str(seed)].run_id)
    name = f"{job.arguments[1]}-{job.arguments[0]}" if job.verb == "baseline" else job.explains or job.arguments[0]
    return Job(
        arguments=arguments,
        seed=seed,
        experiment=QUICK_EXPERIMENT if tier == "quick" else name,
        tracking_uri=store.uri,
        run_name=f"{job.label} seed={seed}",
        tags={REPRODUCES_TAG: job.label},
        test=True,
        verb=job.verb,
    )
