"""Where runs are kept, and how they are found again: MLflow's client on a database or a server."""

import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from pipelines.runtime.class_paths import text_with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.tags import (
    DATA_HASH_KEY,
    DATA_HASH_TAG,
    EXPERIMENT_KEY,
    EXPERIMENT_KIND_TAG,
    KEY_TAG,
    NOT_COMPARED,
    PARENT_RUN_TAG,
    REASON_TAG,
    SEED_PARAMS,
    SEED_TAG,
    STAGE_KEY,
)
from pipelines.tracking.uri import IMPORTING, connect, database_lock, folder_of, store_uri

MAX_NAME = 200  # bytes of a name that is a folder's too; file systems take 255
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
        self._names: dict[str, str] = {}  # of experiments, by id
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
            self._client = self._client or connect(self.uri)

    @property
    def folder(self) -> Path | None:
        """Where a local database lies; None for a server."""
        return folder_of(self.uri)

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
        with database_lock(self.uri):
            found = client.get_experiment_by_name(name)
            if found is None:
                location = (self.folder / "mlartifacts" / name).as_uri() if self.folder else None
                kind = {EXPERIMENT_KIND_TAG: "custom_model_development"}  # else the UI greets with its GenAI pages
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
        found = self._search([experiment_id], f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'")
        if lost is not None and not found:
            raise lost
        for again in found[1:]:  # MLflow itself asks again when the answer is lost
            self.client.delete_run(again.info.run_id)
        return found[0].info

    def find(self, run_id: str) -> "StoredRun":
        """A run by its id.

        Raises:
            UserError: There is no such run.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._read(self.client.get_run(run_id))
        except MlflowException as error:
            where, reason = redact_credentials(self.uri), redact_credentials(str(error).splitlines()[0])
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise UserError(f"there is no run {run_id!r} in {where}") from error
            raise UserError(f"the runs at {where} cannot be reached: {reason}") from error

    def search(
        self, experiment_ids: Sequence[str], filter_string: str, order_by: Sequence[str] = ()
    ) -> list["StoredRun"]:
        """Return all runs of these experiments that match MLflow's filter, page by page."""
        return [self._read(run) for run in self._search(experiment_ids, filter_string, order_by)]

    def _search(self, experiment_ids: Sequence[str], filter_string: str, order_by: Sequence[str] = ()) -> list[Any]:
        runs: list[Any] = []
        token = None
        while experiment_ids:
            page = self.client.search_runs(
                list(experiment_ids), filter_string, max_results=PAGE, order_by=list(order_by), page_token=token
            )
            runs += page
            token = page.token
            if not token:
                break
        return runs

    def experiment_names(self) -> dict[str, str]:
        """Return the names of all experiments, by id."""
        page = self.client.search_experiments()
        experiments = list(page)
        while page.token:
            page = self.client.search_experiments(page_token=page.token)
            experiments += page
        self._names = {str(experiment.experiment_id): str(experiment.name) for experiment in experiments}
        return dict(self._names)

    def _experiment_name(self, experiment_id: str) -> str:
        if experiment_id not in self._names:
            self._names[experiment_id] = str(self.client.get_experiment(experiment_id).name)
        return self._names[experiment_id]

    def _read(self, run: Any) -> "StoredRun":
        info, content = run.info, run.data
        return StoredRun(
            store=self,
            run_id=str(info.run_id),
            name=str(info.run_name),
            experiment=self._experiment_name(str(info.experiment_id)),
            experiment_id=str(info.experiment_id),
            artifact_uri=str(info.artifact_uri),
            status=str(info.status),
            started=int(info.start_time or 0),
            params=dict(content.params),
            metrics=dict(content.metrics),
            tags=dict(content.tags),
        )

    def children(self, run_id: str) -> list["StoredRun"]:
        """Return the runs that name this one as their parent, the oldest first."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        return self.search([experiment_id], f"tags.{PARENT_RUN_TAG} = '{run_id}'", ["attributes.start_time ASC"])

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
                self.client.set_tag(run_id, REASON_TAG, reason[:5000])
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


@dataclass(frozen=True)
class StoredRun:
    """A run read from the tracking store, as it was at that moment.

    Attributes:
        store: Where it was read from.
        experiment: Name of its MLflow experiment.
        status: "RUNNING", "FINISHED", "FAILED" or "KILLED".
        started: Start time in milliseconds since the epoch.
    """

    store: Store = field(repr=False, compare=False)
    run_id: str
    name: str
    experiment: str
    experiment_id: str
    artifact_uri: str
    status: str
    started: int
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]

    @cached_property
    def configuration(self) -> dict[str, str]:
        """What identifies the configuration: experiment, sweep stage, params and data digests, without the seed.

        Runs with equal configurations form one row of `compare`; see also comparison/equal_runs.py.
        """
        params = {
            key: text_with_old_class_paths(self.params[key]) for key in sorted(self.params) if key not in NOT_COMPARED
        }
        digests = " ".join(digest[:8] for _, digest in sorted(self.data_digests.items()))
        return {
            EXPERIMENT_KEY: self.experiment,
            STAGE_KEY: self.tags.get(STAGE_KEY, ""),
            **params,
            DATA_HASH_KEY: digests,
        }

    @property
    def data_digests(self) -> dict[str, str]:
        """SHA-256 of each split of the data, by the name of its tag."""
        return {key: digest for key, digest in self.tags.items() if key.startswith(f"{DATA_HASH_TAG}.")}

    @cached_property
    def seed(self) -> str:
        """The run's seed, or its run id if it recorded none."""
        recorded = [self.tags.get(SEED_TAG), *(self.params.get(key) for key in SEED_PARAMS)]
        return next((str(value) for value in recorded if value), self.run_id)

    def file(self, name: str) -> Path:
        """Return the path of an artifact, for reading: its own path if it is on this machine, else a local copy.

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
