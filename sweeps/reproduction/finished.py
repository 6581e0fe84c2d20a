"""Finished runs of jobs in the tracking store, also of `litlab fit`, and what is measured of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.filters import FINISHED, quoted
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.query import find_runs
from pipelines.tracking.run_names import NEWEST_FIRST
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    CONFIG_HASH_TAG,
    DATA_HASH_TAG,
    EXPLAIN_TAG,
    LEARNING_RATE,
    OLD_EXPLAIN_TAG,
    PARENT_RUN_TAG,
    PROCESSOR_TAG,
    SEED_TAG,
    SYSTEM,
    VERSION_TAG,
    is_summary,
    was_lost,
)
from sweeps.reproduction.identity import Identity, JobIdentity
from sweeps.reproduction.measurements import History, metric_value
from sweeps.reproduction.published_job import PublishedJob
from sweeps.reproduction.row import PACKAGES, Row, is_derived

StoredRuns = dict[str, dict[str, StoredRun]]  # by label and seed


def find_finished_runs(
    store: Store,
    jobs: Sequence[PublishedJob],
    identities: Mapping[str, Identity],
) -> StoredRuns:
    """Find the latest finished and tested run of each job and planned seed, and the explanations of these runs.

    Args:
        store: The tracking store.
        jobs: The jobs, and for each explanation among them the job whose run is explained.
        identities: See `identify_jobs`.
    """
    tested = [run for run in find_runs(store, []).runs if test_metrics(run.metrics, run.tags)]
    tested.sort(key=lambda run: run.started)
    runs: StoredRuns = {}
    for job in sorted(jobs, key=lambda job: bool(job.explains)):  # explanations need the runs
        planned, identity = set(map(str, range(job.seeds))), identities[job.label]
        if job.explains:
            explained = {seed: run for seed, run in runs[job.explains].items() if seed in planned}
            found = {seed: find_explanation(run, identity(seed)) for seed, run in explained.items()}
            runs[job.label] = {seed: run for seed, run in found.items() if run is not None}
        else:
            mine = [run for run in tested if run.seed in planned and identity(run.seed).matches(run)]
            latest = {run.seed: run for run in mine}
            runs[job.label] = {seed: latest[seed] for seed in sorted(latest, key=int)}
    return {job.label: runs[job.label] for job in jobs}


def find_new_run(store: Store, experiment: str, identity: JobIdentity, seed: str) -> StoredRun | None:
    """Return the latest finished and tested run of a job and a seed in an MLflow experiment, if it is of this version.

    It is found by its hash: other runs of the experiment, perhaps thousands, are not read.
    """
    ids = [number for number, name in store.experiment_names().items() if name == experiment]
    equal = f"tags.`{CONFIG_HASH_TAG}` = '{identity.hash}' AND tags.{SEED_TAG} = '{seed}' AND {FINISHED}"
    runs = [run for run in store.search(ids, equal, NEWEST_FIRST) if not (is_summary(run.tags) or was_lost(run.tags))]
    return next((run for run in runs if test_metrics(run.metrics, run.tags)), None)


def find_explanation(run: StoredRun, identity: JobIdentity) -> StoredRun | None:
    """Return the latest finished explanation of a run by a job."""
    explanations: list[StoredRun] = []
    for tag in (EXPLAIN_TAG, OLD_EXPLAIN_TAG):
        equal = f"tags.{PARENT_RUN_TAG} = '{run.run_id}' AND tags.`{tag}` = {quoted(identity.arguments)} AND {FINISHED}"
        explanations += run.store.search([run.experiment_id], equal)
    return max(explanations, key=lambda explanation: explanation.started, default=None)


def row_of(run: StoredRun, job: PublishedJob, config_hash: str, seed: str) -> Row:
    """Return what is measured of a finished run of a job."""
    derived = {metric: metric_value(run, metric, _history(run)) for metric in job.metrics if is_derived(metric)}
    known = {metric: value for metric, value in derived.items() if value is not None}
    card = _data_card(run)
    versions = {name: run.tags.get(f"{VERSION_TAG}.{name}", "") for name in ("python", *PACKAGES)}
    return Row(
        label=job.label,
        config_hash=config_hash,
        seed=seed,
        date=date.fromtimestamp(run.started / 1000).isoformat(),
        seconds=max(0, (run.ended or run.started) - run.started) / 1000,
        versions={name: version for name, version in versions.items() if version},
        processor=run.tags.get(PROCESSOR_TAG, ""),
        data=card.get("source", ""),
        data_files=card.get("files", ""),
        test_size=card.get("sizes", {}).get("test"),
        test_sha256=run.tags.get(f"{DATA_HASH_TAG}.test", ""),
        metrics={name: value for name, value in run.metrics.items() if not _is_of_machine(name)} | known,
        absent=frozenset(derived.keys() - known.keys()),
    )


def _is_of_machine(metric: str) -> bool:
    return metric.partition("/")[0] == SYSTEM or metric.startswith(LEARNING_RATE)


def _history(run: StoredRun) -> History:
    client = run.store.client
    return lambda run_id, metric: [(item.step, item.value) for item in client.get_metric_history(run_id, metric)]


def _data_card(run: StoredRun) -> dict[str, Any]:
    """Return the description of a run's data, its file data.json; empty if it has none."""
    try:
        return dict(json.loads(run.file("data.json").read_text()))
    except (UserError, ValueError):
        return {}
