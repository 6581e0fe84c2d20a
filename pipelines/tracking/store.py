"""Where runs are kept, and how they are found again: MLflow's client on a database or a server."""

import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.uri import IMPORTING, database_file, folder_of, import_client, store_uri

MAX_NAME = 200  # bytes of a name that is a folder's too; file systems take 255
KEY_TAG = "litlab.key"
PAGE = 1000  # runs that MLflow gives in one answer


class NewRun(NamedTuple):
    """A run that has just been created, as the store describes it."""

    run_id: str
    run_name: str
    experiment_id: str
    artifact_uri: str


class Store:
    """A place that keeps runs: MLflow's client on a database, which is made on first use, or on a server.

    Args:
        uri: See `store_uri`.
        opened: Whether it is opened at once; else when it is first used.

    Raises:
        UserError: The database cannot be opened or the server does not answer.
    """

    def __init__(self, uri: str | None = None, *, opened: bool = True) -> None:
        self.uri = store_uri(uri)
        self._client: Any = None
        if opened:
            self.open()

    @property
    def client(self) -> Any:
        """MLflow's client; opens the store, unless it is open."""
        self.open()
        return self._client

    @property
    def is_open(self) -> bool:
        return self._client is not None

    def open(self) -> None:
        """Open it, unless it is open.

        Raises:
            UserError: See `Store`.
        """
        with IMPORTING:
            self._client = self._client or self._connected()

    def _connected(self) -> Any:
        MlflowClient = import_client(self.uri)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._alone():
                client = MlflowClient(self.uri)
                client.search_experiments(max_results=1)  # creates the tables of a new database
                return client
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            reason = redact_credentials(str(error).splitlines()[0])
            raise UserError(f"the runs at {redact_credentials(self.uri)} cannot be reached: {reason}") from error

    @property
    def folder(self) -> Path | None:
        """Where a local database lies; None for a server."""
        return folder_of(self.uri)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of a local database: two processes that create its tables at once would both crash."""
        file = database_file(self.uri)
        if file is None:
            yield
            return
        from filelock import FileLock

        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=120):
            yield

    def experiment_id(self, name: str) -> str:
        """The MLflow experiment of that name, created or restored if need be.

        Raises:
            UserError: The name would not do as a folder's.
        """
        if not re.fullmatch(r"\w[\w. -]*", name) or len(name.encode()) > MAX_NAME:
            raise UserError(
                f"name {name!r}: only letters, digits, '.', '_', '-' and spaces, {MAX_NAME} at most; "
                "give another with --name"
            )
        client = self.client  # to open it takes the same lock
        with self._alone():
            found = client.get_experiment_by_name(name)
            if found is None:
                location = (self.folder / "mlartifacts" / name).as_uri() if self.folder else None
                kind = {"mlflow.experimentKind": "custom_model_development"}  # else the UI greets with its GenAI pages
                return str(client.create_experiment(name, artifact_location=location, tags=kind))
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> NewRun:
        """Create a run of an experiment, once; if the answer is lost, the run that was created is found.

        Raises:
            UserError: The store does not take it.
        """
        from mlflow.exceptions import MlflowException

        try:
            info = self._create_run(self.experiment_id(experiment), name, {**tags, KEY_TAG: uuid.uuid4().hex})
        except MlflowException as error:
            raise UserError(f"{redact_credentials(self.uri)} takes no run: {str(error).splitlines()[0]}") from error
        return NewRun(info.run_id, info.run_name, info.experiment_id, info.artifact_uri)

    def _create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> Any:
        from mlflow.exceptions import MlflowException

        lost = None
        try:
            run = self.client.create_run(experiment_id, run_name=name, tags=tags)
            if self.folder is not None:
                return run.info
        except MlflowException as error:
            lost = error
        found = self.search([experiment_id], f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'")
        if lost is not None and not found:
            raise lost
        for again in found[1:]:  # MLflow itself asks again when the answer is lost
            self.client.delete_run(again.info.run_id)
        return found[0].info

    def find(self, run_id: str) -> "FinishedRun":
        """A run by its id.

        Raises:
            UserError: There is no such run.
        """
        from mlflow.exceptions import MlflowException

        try:
            return FinishedRun(self, self.client.get_run(run_id))
        except MlflowException as error:
            where, reason = redact_credentials(self.uri), redact_credentials(str(error).splitlines()[0])
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise UserError(f"there is no run {run_id!r} in {where}") from error
            raise UserError(f"the runs at {where} cannot be reached: {reason}") from error

    def search(self, experiments: Sequence[str], wanted: str, order: Sequence[str] = ()) -> list[Any]:
        """All runs of these experiments (by id) that MLflow's filter wants, as MLflow's own objects, page by page."""
        found: list[Any] = []
        token = None
        while experiments:
            page = self.client.search_runs(
                list(experiments), wanted, max_results=PAGE, order_by=list(order), page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def children(self, run_id: str) -> list["FinishedRun"]:
        """The runs that name this one as their parent, the oldest first."""
        experiment = self.client.get_run(run_id).info.experiment_id
        wanted, order = f"tags.mlflow.parentRunId = '{run_id}'", ["attributes.start_time ASC"]
        return [FinishedRun(self, run) for run in self.search([experiment], wanted, order)]

    def delete_files(self, run_id: str, name: str) -> bool:
        """Delete an artifact of a run, a file or a folder; whether the store has done it."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        def delete() -> None:
            uri = self.client.get_run(run_id).info.artifact_uri
            get_artifact_repository(uri, self.uri).delete_artifacts(name)  # type: ignore[no-untyped-call]

        return taken(delete)

    def tag(self, run_id: str, key: str, value: str) -> bool:
        """Tag a run; whether the store has done it."""
        return taken(lambda: self.client.set_tag(run_id, key, value))

    def end(self, run_id: str, status: str, reason: str) -> bool:
        """End a run whose own process cannot do it any more, unless it has ended; whether the store has done it."""

        def end() -> None:
            if self.client.get_run(run_id).info.status == "RUNNING":
                self.client.set_tag(run_id, "litlab.reason", reason[:5000])
                self.client.set_terminated(run_id, status)

        return taken(end)

    def keep_file(self, run_id: str, path: Path, name: str) -> bool:
        """Keep a file as an artifact of a run, under this name; whether the store has done it."""
        if not path.is_file() or not path.stat().st_size:
            return False
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(path, Path(folder) / name)
            return taken(lambda: self.client.log_artifact(run_id, str(Path(folder) / name)))


def local_path(artifact_uri: str) -> Path | None:
    """Where the artifacts of a run are, if they are files that this process can write itself."""
    parsed = urlparse(artifact_uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def taken(step: Callable[[], object]) -> bool:
    """Whether the store has done it."""
    from mlflow.exceptions import MlflowException

    try:
        step()
    except (MlflowException, OSError):
        return False
    return True


class FinishedRun:
    """A run that is there to be read."""

    def __init__(self, store: Store, run: Any) -> None:
        self.store, self.run_id, self.status = store, str(run.info.run_id), str(run.info.status)
        self.experiment_id, self.artifact_uri = str(run.info.experiment_id), str(run.info.artifact_uri)
        self.metrics: dict[str, float] = dict(run.data.metrics)
        self.tags: dict[str, str] = dict(run.data.tags)

    def file(self, name: str) -> Path:
        """An artifact, where it lies if that is on this machine, else a local copy: only to be read.

        Raises:
            UserError: The run has no such artifact.
        """
        from mlflow.exceptions import MlflowException

        folder = local_path(self.artifact_uri)
        if folder is not None and (folder / name).exists():
            return folder / name
        try:
            return Path(self.store.client.download_artifacts(self.run_id, name))
        except (MlflowException, OSError) as error:
            raise UserError(f"run {self.run_id} ({self.status}) has no {name}") from error
