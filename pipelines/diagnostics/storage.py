"""Check what runs occupy on this machine's disk: in use, deleted, and never finished."""

import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.runtime.files import disk_use
from pipelines.runtime.text import count, format_mb, redact_credentials
from pipelines.tracking.artifacts import artifact_folder
from pipelines.tracking.client import all_pages
from pipelines.tracking.run_log import unsent_logs
from pipelines.tracking.store import PAGE, Store
from pipelines.tracking.uri import local_path

MAX_EXPERIMENTS = 10  # that get a line each
STALE_S = 3600.0  # a file that is being written is younger


def check_disk(context: Context) -> Iterator[CheckResult]:
    """Report what each experiment occupies and what deleted runs still occupy, and free the latter if asked to.

    MLflow keeps the files of a deleted run, so that it can be restored, until `mlflow gc`, which keeps its models.
    """
    store = context.open_store()
    if store is None or store.folder is None:
        yield CheckResult("disk", "no runs on this machine" if store is None else "the artifacts are on a server")
        return
    from mlflow.entities import ViewType

    client = store.client
    experiments = all_pages(lambda token: client.search_experiments(view_type=ViewType.ALL, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    models = all_pages(lambda token: client.search_logged_models(ids, page_token=token))  # before the runs of new ones
    runs = all_pages(lambda token: client.search_runs(ids, "", ViewType.ALL, PAGE, page_token=token))
    yield from _use(store, experiments, Counter(run.info.experiment_id for run in runs))
    active = {run.info.run_id for run in runs if run.info.lifecycle_stage == "active"}
    deleted = [run for run in runs if run.info.run_id not in active]
    unused = _unused_models(client, models, active)
    if deleted or unused:
        yield from _deleted(store, deleted, unused, free=context.free)


def check_leftovers(context: Context) -> Iterator[CheckResult]:
    """Check for unfinished files of processes that were killed, and for damaged checkpoints."""
    artifacts = context.folder / "mlartifacts"
    parts = [*artifacts.glob("*/*/artifacts/checkpoints/.*.part"), *artifacts.glob("*/*/artifacts/.*.part")]
    for path in parts:
        if time.time() - path.stat().st_mtime < STALE_S:
            continue
        if context.fix:
            path.unlink(missing_ok=True)
            message = f"{path} is deleted: an unfinished file, of which the complete or the previous version exists"
            yield CheckResult("leftovers", message, "fixed")
        else:
            yield failed("leftovers", f"{path} is a file that was never finished: litlab doctor --fix deletes it")
    if damaged := list(artifacts.glob("*/*/artifacts/checkpoints/*.damaged")):
        message = f"{len(damaged)} damaged checkpoints ({damaged[0]}) can be deleted if not needed"
        yield CheckResult("leftovers", message)


def _use(store: Store, experiments: Iterable[Any], n_runs: Counter[str]) -> Iterator[CheckResult]:
    """Report the size of each experiment, the largest first."""
    folders = [(one, artifact_folder(one.artifact_location, store.uri)) for one in experiments]
    sizes = [
        (disk_use([folder]), experiment) for experiment, folder in folders if folder is not None and folder.is_dir()
    ]
    sizes.sort(key=lambda item: -item[0])
    for size, experiment in sizes[:MAX_EXPERIMENTS]:
        runs = count(n_runs[experiment.experiment_id], "run")
        yield CheckResult("disk", f"{format_mb(size)} by {experiment.name}, {runs}")
    total, rest = sum(size for size, _ in sizes), len(sizes) - MAX_EXPERIMENTS
    more = f" ({rest} smaller ones are not listed)" if rest > 0 else ""
    yield CheckResult("disk", f"{format_mb(total)} by {count(len(sizes), 'experiment')} in all{more}")


def _unused_models(client: Any, models: Iterable[Any], active: set[str]) -> list[Any]:
    """Return the models of deleted runs that are not registered."""
    models = [model for model in models if model.source_run_id and model.source_run_id not in active]
    versions = all_pages(lambda token: client.search_model_versions(page_token=token)) if models else []
    sources = " ".join(f"{version.source} {version.model_id}" for version in versions)
    return [model for model in models if model.model_id not in sources]


def _deleted(store: Store, runs: list[Any], models: list[Any], *, free: bool) -> Iterator[CheckResult]:
    uris = [*(run.info.artifact_uri for run in runs), *(model.artifact_location for model in models)]
    folders = [folder for uri in uris if (folder := artifact_folder(uri, store.uri)) is not None]
    what = f"{count(len(runs), 'deleted run')} and {count(len(models), 'model')} of deleted runs"
    size = disk_use(folders)
    arguments = ["gc", "--backend-store-uri", store.uri, "--tracking-uri", store.uri]
    command = shlex.join(["mlflow", *arguments])
    if not free:
        message = (
            f"{format_mb(size)} by {what}; litlab doctor --free deletes them permanently ({command}: only the runs)"
        )
        yield CheckResult("deleted", message)
        return
    if any(artifact_folder(uri, store.uri) != local_path(uri) for uri in uris):
        yield failed("deleted", f"{format_mb(size)} by {what}: the project was moved; litlab doctor --fix first")
        return
    for model in models:
        store.client.delete_logged_model(model.model_id)
    done = subprocess.run([sys.executable, "-m", "mlflow", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        yield failed("deleted", f"{command} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return
    ids = {run.info.run_id for run in runs}
    for log in unsent_logs(store.uri):
        if log.run_id in ids and log.uri == redact_credentials(store.uri):
            log.remove()
    yield CheckResult("deleted", f"{format_mb(size - disk_use(folders))} freed: {what}", "fixed")
