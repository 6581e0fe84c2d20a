"""The parts of MLflow that litlab uses although they are not documented, tried with 3.17.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `DATABASE_STORE`: imported together with the client, before a training needs it.
- `DATABASE_LOGGER`: prints the errors of a database, which the caller reports in one line.
- `get_artifact_repository`: deletes artifacts of a run; MLflow's client has no request for that.
"""

DATABASE_STORE = "mlflow.store.tracking.sqlalchemy_store"
DATABASE_LOGGER = "mlflow.store.db.utils"


def delete_artifacts(artifact_uri: str, tracking_uri: str, name: str) -> None:
    """Delete an artifact of a run, a file or a folder.

    Raises:
        MlflowException, OSError: It cannot be deleted.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(artifact_uri, tracking_uri).delete_artifacts(name)  # type: ignore[no-untyped-call]
