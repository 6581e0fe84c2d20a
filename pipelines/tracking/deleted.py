"""Errors for runs that were deleted in MLflow, with the command that restores or forgets them."""

import shlex
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.client import all_pages
from pipelines.tracking.run_log import unsent_logs
from pipelines.tracking.tags import REMOVED_TAG


class RunGoneError(UserError):
    """The tracking store does not have a run."""


class RunDeletedError(RunGoneError):
    """A run was deleted. MLflow keeps it, so that it can be restored, until it is deleted permanently."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


def is_deleted(entity: Any) -> bool:
    """Return whether a run's info or an experiment, as MLflow returns them, is deleted."""
    return bool(entity.lifecycle_stage == "deleted")


def deleted_run_ids(client: Any, filter_string: str) -> list[str]:
    """Return the ids of deleted runs that match a filter, the newest first; also those of deleted experiments."""
    from mlflow.entities import ViewType

    ids = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    newest_first = ["attributes.start_time DESC"]
    found = client.search_runs(ids, filter_string, run_view_type=ViewType.DELETED_ONLY, order_by=newest_first)
    return [run.info.run_id for run in found]


def missing_run(run_id: str, uri: str) -> RunGoneError:
    """Return the error for a run that the store does not know."""
    return RunGoneError(f"there is no run {run_id!r} in {redact_credentials(uri)}{_forget(run_id, uri)}")


def deleted_run(client: Any, run: Any, uri: str) -> RunDeletedError:
    """Return the error for a run that was deleted, perhaps with its experiment, or removed with its files."""
    info, removed = run.info, run.data.tags.get(REMOVED_TAG)
    if removed:
        return RunDeletedError(f"run {info.run_id} was removed with its files on {removed[:10]}", info.run_id)
    experiment = client.get_experiment(info.experiment_id)
    restore, what = f"runs restore --run-id {info.run_id}", "it"
    if is_deleted(experiment):
        restore = f"experiments restore --experiment-id {experiment.experiment_id}"
        what = f"its experiment, {experiment.name}, with all runs of it"
    command = f"MLFLOW_TRACKING_URI={shlex.quote(redact_credentials(uri))} mlflow {restore}"
    message = f"run {info.run_id} was deleted: restore {what} with `{command}`{_forget(info.run_id, uri)}"
    return RunDeletedError(message, info.run_id)


def _forget(run_id: str, uri: str) -> str:
    """Return how to delete the unsent data of a run; "" if it has none here."""
    has_unsent = any(log.run_id == run_id for log in unsent_logs(uri))
    return f", or forget it with `litlab sync --forget {run_id}`" if has_unsent else ""


def restore_experiment(client: Any, experiment_id: str) -> None:
    """Restore an experiment without its runs: MLflow restores all with it, also those deleted long before."""
    from mlflow.entities import ViewType

    def page(token: str | None) -> Any:
        return client.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY, page_token=token)

    deleted = all_pages(page)
    client.restore_experiment(experiment_id)
    for run in deleted:
        client.delete_run(run.info.run_id)
