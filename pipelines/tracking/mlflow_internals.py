"""The parts of MLflow that litlab uses although they are not documented, tried with 3.17.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `DATABASE_STORE`: imported together with the client, before a training needs it.
- `DATABASE_LOGGER`: prints the errors of a database, which the caller reports in one line.
- `get_artifact_repository`: deletes artifacts of a run, and lists those of a model; MLflow's client has no
  request for that.
- `_artifact_repository_registry`: reads and writes artifacts where they are after a project was moved.
- `UI_STATE_KEY`, `UI_SETTINGS`, `UI_NO_TELEMETRY`: what the pages of the UI keep in the browser (localStorage): the
  view of an experiment, the choice of "Model training", and that its usage data are not collected.
- `mlflow.system_metrics.metrics`: the monitors of the machine that MLflow's own system metrics come from.
- `database_engine`, `database_tables`: count runs in a database; MLflow's client reads all of them, with all they have.
- `LOCATIONS`: tables and columns of a database with paths of artifacts, which MLflow's client cannot change.
"""

from typing import Any, NamedTuple

from pipelines.tracking.artifacts import artifact_folder
from pipelines.tracking.uri import local_path

DATABASE_STORE = "mlflow.store.tracking.sqlalchemy_store"
DATABASE_LOGGER = "mlflow.store.db.utils"
UI_STATE_KEY = 'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
UI_SETTINGS = {"mlflow.workflowType_v1": "machine_learning", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True}
UI_NO_TELEMETRY = {"mlflow.settings.telemetry.enabled_v1": False, "mlflow.telemetry.info.alert.dismissed_v1": True}
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_moved_artifacts() -> None:
    """Let MLflow's clients in this process find local artifacts as `artifact_folder` does."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
        folder = artifact_folder(artifact_uri, tracking_uri or "")
        if folder is not None and folder != local_path(artifact_uri):
            artifact_uri = folder.as_uri()
        return LocalArtifactRepository(artifact_uri, tracking_uri, registry_uri)

    for scheme in ("", "file"):  # MLflow itself records a path without a scheme
        _artifact_repository_registry.register(scheme, repository)  # type: ignore[no-untyped-call]


def delete_artifacts(artifact_uri: str, tracking_uri: str, name: str | None) -> None:
    """Delete an artifact of a run, a file or a folder; all of them if no name is given.

    Raises:
        MlflowException, OSError: It cannot be deleted.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(artifact_uri, tracking_uri).delete_artifacts(name)  # type: ignore[no-untyped-call]


def system_monitors() -> tuple[list[Any], Exception | None]:
    """Return MLflow's monitors of CPU, memory, disk, network and GPUs; and why there is none of GPUs, if so."""
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    kinds: list[Any] = [cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor, network_monitor.NetworkMonitor]
    monitors, gpus = [kind() for kind in kinds], gpu_monitor.GPUMonitor
    try:
        return [*monitors, gpus()], None  # type: ignore[no-untyped-call]
    except Exception as error:  # nvidia-ml-py is missing, or there is no GPU
        return monitors, error


def artifact_bytes(artifact_uri: str, tracking_uri: str) -> int:
    """Return the size of all artifacts below a URI.

    Raises:
        MlflowException, OSError: They cannot be listed.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(artifact_uri, tracking_uri)

    def size(folder: str | None) -> int:
        files = repository.list_artifacts(folder)
        return sum(size(file.path) if file.is_dir else int(file.file_size or 0) for file in files)

    return size(None)


class Tables(NamedTuple):
    """SQLAlchemy's classes of the tables of runs in a database."""

    runs: Any
    params: Any
    metrics: Any  # the latest value of each
    tags: Any


def database_engine(client: Any) -> Any:
    """Return SQLAlchemy's engine of the client of a database."""
    return client._tracking_client.store.engine


def database_tables() -> Tables:
    """Return the tables of runs."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag

    return Tables(SqlRun, SqlParam, SqlLatestMetric, SqlTag)
