"""The runs of published jobs: find those that are finished, also of `litlab fit`, and train what is missing."""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config.identity import config_hash, flatten_config
from pipelines.config.matching import ConfigMatcher, saved_configs
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.environment import cpu_count
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import CONFIG_HASH_TAG, EXPLAIN_TAG, OLD_EXPLAIN_TAG, PARENT_RUN_TAG, REPRODUCES_TAG
from sweeps.reproduction.claims import Plan, PublishedJob
from sweeps.workers.batch import graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

QUICK_EXPERIMENT = "reproduce-quick"  # MLflow experiment of all runs of the quick tier
MAX_WORKERS = 4
GIVEN = ("method", "C", "components", "model", "data", "trainer.max_epochs")  # keys that a run of any version has
Runs = dict[str, dict[str, StoredRun]]  # by label and seed


@dataclass(frozen=True)
class JobIdentity:
    """What identifies the runs of a job.

    Attributes:
        hash: Hash of the configuration, equal for runs that differ only in the seed and the place of the data; of an
            explanation, its arguments.
        reads_files: Whether the data are read from files, so that the job takes `--data.data_dir`.
        explains: Label of the job whose run is explained; "" if nothing is.
        matcher: Finds runs of other versions, which recorded another hash; None for an explanation.
        given: Params that all these runs have, as in `StoredRun.configuration`.
    """

    hash: str
    reads_files: bool
    explains: str = ""
    matcher: ConfigMatcher | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    def matches(self, run: StoredRun) -> bool:
        """Return whether a run has this configuration, perhaps without a key that was added later.

        The matcher may read files of the run, so params are compared first.
        """
        if run.tags.get(CONFIG_HASH_TAG) == self.hash:
            return True
        has_params = self.given.items() <= run.configuration.items()
        return has_params and self.matcher is not None and self.matcher.matches(run)


def identify_jobs(jobs: Collection[PublishedJob]) -> dict[str, JobIdentity]:
    """Parse each job's command, and return the identities by label.

    Raises:
        UserError: A command is invalid.
    """
    silence_lightning()
    identities = {job.label: _identify(job) for job in jobs if not job.explains}
    for job in (job for job in jobs if job.explains):
        reads_files = identities[job.explains].reads_files
        identities[job.label] = JobIdentity(shlex.join(job.arguments), reads_files, job.explains)
    return identities


def _identify(job: PublishedJob) -> JobIdentity:
    """Return the identity of a training or a baseline."""
    from pipelines.config.cli import parse_config
    from pipelines.config.defaults import config_defaults

    if job.verb == "baseline":
        from pipelines.commands import baseline
        from pipelines.evaluation.baseline import baseline_config, recorded_baseline
        from pipelines.evaluation.baseline_methods import settings_of

        arguments = baseline.parse(job.arguments)
        cli = parse_config(job.verb, [arguments.experiment, *arguments.overrides])
        (setting,) = settings_of(arguments.method, C=arguments.C, components=arguments.components)
        config, read = baseline_config(arguments.method, setting, cli), recorded_baseline
    else:
        cli = parse_config(job.verb, job.arguments)
        config, read = cli.resolved(), saved_configs
    digest, flat = config_hash(config), flatten_config(with_old_class_paths(config))
    return JobIdentity(
        hash=digest,
        reads_files="data_dir" in config["data"].get("init_args", {}),
        matcher=ConfigMatcher(digest, config, lambda: config_defaults(cli), read),
        given={key: str(value) for key, value in flat.items() if key in GIVEN and value is not None},
    )


def find_finished_runs(store: Store, identities: Mapping[str, JobIdentity], seeds: int) -> Runs:
    """Find the latest finished and tested run of each job and seed (from 0), and the explanations of these runs."""
    tested = [run for run in find_runs(store, []).runs if test_metrics(run.metrics, run.tags)]
    tested.sort(key=lambda run: run.started)
    runs: Runs = {}
    for label, identity in identities.items():  # explanations are the last
        if identity.explains:
            explained = runs[identity.explains].items()
            explanations = {seed: _latest_explanation(store, run, identity.hash) for seed, run in explained}
            runs[label] = {seed: run for seed, run in explanations.items() if run is not None}
        else:
            latest = {run.seed: run for run in tested if identity.matches(run)}
            runs[label] = {seed: latest[seed] for seed in map(str, range(seeds)) if seed in latest}
    return runs


def _latest_explanation(store: Store, run: StoredRun, arguments: str) -> StoredRun | None:
    """Return the last finished explanation of a run with these arguments."""
    explanations: list[StoredRun] = []
    for tag in (EXPLAIN_TAG, OLD_EXPLAIN_TAG):
        equal = f"tags.{PARENT_RUN_TAG} = '{run.run_id}' AND tags.`{tag}` = '{arguments}'"
        explanations += store.search([run.experiment_id], f"{equal} AND attributes.status = 'FINISHED'")
    return max(explanations, key=lambda explanation: explanation.started, default=None)


def default_workers() -> int:
    """Return the default number of trainings in parallel: one on a GPU, else one for each CPU core, at most 4."""
    import torch

    return 1 if torch.cuda.is_available() else min(cpu_count(), MAX_WORKERS)


def run_missing_jobs(
    plan: Plan, store: Store, pool: Pool, *, seeds: int, train: bool, data_dir: str | Path | None
) -> tuple[Runs, Mapping[str, str], int | None]:
    """Run a plan's jobs with those seeds that have no finished run. For the arguments see `reproduce`.

    Returns:
        All finished runs, with those that existed before; why a job of this call failed, by label; the signal that
        stopped the trainings, or None.

    Raises:
        UserError: A command is invalid, or the tracking store is lost.
    """
    if train:
        pool.warm_up()
        pool.check_store(store)
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
            failed = [result for result in results if result.status != "FINISHED"]
            failures |= {result.job.tags[REPRODUCES_TAG]: result.reason for result in failed}
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
