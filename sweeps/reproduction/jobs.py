"""Run the published jobs that have no finished run yet: first trainings and baselines, then explanations of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.runtime.environment import cpu_count
from pipelines.tracking.store import Store
from pipelines.tracking.tags import REPRODUCES_TAG
from sweeps.reproduction.claims import Plan, PublishedJob
from sweeps.reproduction.finished_runs import ConfigIdentity, Runs, find_finished_runs, identify_jobs
from sweeps.workers.batch import JobResult, graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

QUICK_EXPERIMENT = "reproduce-quick"  # MLflow experiment of all runs of the quick tier
MAX_WORKERS = 4


@dataclass(frozen=True)
class JobRuns:
    """Finished runs of a plan's jobs, and what happened to the others.

    Attributes:
        runs: All finished runs, with those that existed before.
        failures: Why a job of this call failed, by label.
        stop_signal: The signal that stopped the trainings, or None.
    """

    runs: Runs
    failures: Mapping[str, str]
    stop_signal: int | None


def default_workers() -> int:
    """Return the default number of trainings in parallel: one on a GPU, else one for each CPU core, at most 4."""
    import torch

    return 1 if torch.cuda.is_available() else min(cpu_count(), MAX_WORKERS)


def run_missing_jobs(
    plan: Plan,
    store: Store,
    *,
    seeds: int,
    workers: int,
    train: bool,
    data_dir: str | Path | None,
    folder: Path,
) -> JobRuns:
    """Run a plan's jobs with those seeds that have no finished run.

    Args:
        plan: The jobs.
        store: Tracking store.
        seeds: Number of seeds, from 0.
        workers: Trainings in parallel.
        train: Whether to run what is missing.
        data_dir: Folder of MNIST and CIFAR-10, or None.
        folder: Scratch folder.

    Raises:
        UserError: A command is invalid, or the tracking store is lost.
    """
    with Pool(workers, folder) as pool, LiveDisplay() as display:
        if train:
            pool.warm_up()
        identities = identify_jobs(plan.jobs.values())
        runs = find_finished_runs(store, identities, seeds)
        expected = _expected_runs(plan.jobs.values(), seeds)
        reused = sum(str(seed) in runs[job.label] for job, seed in expected)
        _announce(display, plan.tier, seeds, len(expected), reused)
        results: list[JobResult] = []
        with graceful_shutdown(pool) as signals:
            for explaining in (False, True):  # explanations need the runs
                chosen = [(job, seed) for job, seed in expected if bool(job.explains) == explaining]
                missing = _missing_jobs(plan.tier, chosen, identities, runs, store, data_dir)
                if not train or signals or not missing:
                    continue
                title = f"explanations, {plan.tier} tier" if explaining else f"{plan.tier} tier"
                results += run_jobs(pool, missing, store, display, title=title, reused=reused)
                reused += len(missing)
                runs = find_finished_runs(store, identities, seeds)
    failures = {result.job.tags[REPRODUCES_TAG]: result.reason for result in results if result.status != "FINISHED"}
    return JobRuns(runs, failures, signals[0] if signals else None)


def _expected_runs(jobs: Iterable[PublishedJob], seeds: int) -> list[tuple[PublishedJob, int]]:
    """Return each job with its seeds, all jobs with the first seed before the second; deterministic jobs have one."""
    jobs = list(jobs)
    return [(job, seed) for seed in range(seeds) for job in jobs if job.is_stochastic or seed == 0]


def _announce(display: LiveDisplay, tier: str, seeds: int, count: int, reused: int) -> None:
    display.print(f"{tier} tier, {seeds} seeds: {count} runs, {reused} of them are already finished")
    if tier == "quick":
        display.print("on data that come with litlab: digits instead of MNIST and CIFAR-10, which --tier full uses")


def _missing_jobs(
    tier: str,
    expected: Sequence[tuple[PublishedJob, int]],
    identities: Mapping[str, ConfigIdentity],
    runs: Runs,
    store: Store,
    data_dir: str | Path | None,
) -> list[Job]:
    """Return the jobs that have no finished run. Explanations of runs that do not exist are left out."""
    jobs = []
    for job, seed in expected:
        if str(seed) in runs[job.label] or (job.explains and str(seed) not in runs[job.explains]):
            continue
        arguments = list(job.arguments)
        if data_dir is not None and identities[job.label].reads_files:
            arguments += ["--data.data_dir", str(data_dir)]
        if job.explains:
            arguments.insert(1, runs[job.explains][str(seed)].run_id)
        jobs.append(_worker_job(tier, job, seed, arguments, store))
    return jobs


def _worker_job(tier: str, job: PublishedJob, seed: int, arguments: list[str], store: Store) -> Job:
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
