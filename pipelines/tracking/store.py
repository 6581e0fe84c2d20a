"""The tracking store: MLflow's client on a database or a server, and the runs read from it."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.runtime.class_paths import text_with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking import creation
from pipelines.tracking.artifacts import artifact_folder
from pipelines.tracking.client import IMPORTING, all_pages, attempt, connect, unbounded, unreachable
from pipelines.tracking.deleted import deleted_run, is_deleted, missing_run
from pipelines.tracking.folds import fold_of, shared_digests, shared_params
from pipelines.tracking.mlflow_internals import delete_artifacts
from pipelines.tracking.passive import without_passive
from pipelines.tracking.tags import (
    DATA_HASH_KEY,
    EXPERIMENT_KEY,
    NOTE_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    REASON_TAG,
    SEED_PARAMS,
    SEED_TAG,
    STAGE_KEY,
)
from pipelines.tracking.uri import database_lock, folder_of, store_uri

PAGE = 1000  # runs per request


class NewRun(NamedTuple):
    """A run that was just created."""

    run_id: str
    run_name: str
    experiment_id: str
    artifact_uri: str


class Store:
    """A tracking store: MLflow's client on a database, which is created on first use, or on a server.

    Args:
        uri: See `store_uri`.
        opened: Whether to connect now or on first use.

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
        """MLflow's client; connects if the store is not open."""
        self.open()
        return self._client

    def open(self) -> None:
        """Connect to the store if it is not open.

        Raises:
            UserError: See `Store`.
        """
        with IMPORTING:
            self._client = self._client or connect(self.uri)

    @property
    def folder(self) -> Path | None:
        """The folder of a local database; None for a server."""
        return folder_of(self.uri)

    def experiment_id(self, name: str, description: str = "") -> str:
        """Return the id of an MLflow experiment. It is created if missing, and restored without its runs if deleted.

        Raises:
            UserError: The name is not a valid folder name.
        """
        creation.check_experiment_name(name)
        client = self.client  # connecting takes the same lock
        with database_lock(self.uri):
            return creation.find_or_create_experiment(client, name, self.folder, description)

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str], *, retry: bool = False) -> NewRun:
        """Create a run, exactly once: if the response is lost, the run is found by a random key, its KEY_TAG.

        With `retry`, an earlier call with the same key may have created it.

        Raises:
            UserError: The store refuses it or cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        try:
            place = self.experiment_id(experiment, tags.get(NOTE_TAG, ""))
            info = creation.create_run(self.client, place, name, tags, local=self.folder is not None, retry=retry)
        except MlflowException as error:
            raise UserError(f"no run can be created in {redact_credentials(self.uri)}: {first_line(error)}") from error
        return NewRun(info.run_id, info.run_name, info.experiment_id, info.artifact_uri)

    def find(self, run_id: str) -> "StoredRun":
        """Return a run by its id.

        Raises:
            RunGoneError: There is no such run, or it was deleted.
            UserError: The store cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
            if is_deleted(run.info):
                raise deleted_run(self.client, run, self.uri)
            return self.read(run)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise missing_run(run_id, self.uri) from error
            raise UserError(unreachable(self.uri, error)) from error

    def search(
        self, experiment_ids: Sequence[str], filter_string: str, order_by: Sequence[str] = (), limit: int | None = None
    ) -> list["StoredRun"]:
        """Return the first runs of these experiments that match an MLflow filter; all of them without a limit."""
        size = min(limit or PAGE, PAGE)

        def page(token: str | None) -> Any:
            return self.client.search_runs(
                list(experiment_ids), filter_string, max_results=size, order_by=list(order_by), page_token=token
            )

        return [self.read(run) for run in (all_pages(page, limit) if experiment_ids else [])]

    def experiment_names(self) -> dict[str, str]:
        """Return the names of all experiments, by id."""
        experiments = all_pages(lambda token: self.client.search_experiments(page_token=token))
        self._names = {str(experiment.experiment_id): str(experiment.name) for experiment in experiments}
        return dict(self._names)

    def _experiment_name(self, experiment_id: str) -> str:
        if experiment_id not in self._names:
            self._names[experiment_id] = str(self.client.get_experiment(experiment_id).name)
        return self._names[experiment_id]

    def read(self, run: Any) -> "StoredRun":
        """Return a run that MLflow's client has returned."""
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
            metrics={key: unbounded(value) for key, value in content.metrics.items()},
            tags=dict(content.tags),
            ended=info.end_time,
            profiles=[str(one.dataset.profile) for one in (run.inputs.dataset_inputs if run.inputs else ())],
        )

    def children(self, run_id: str) -> list["StoredRun"]:
        """Return the child runs of a run, oldest first."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        return self.search([experiment_id], f"tags.{PARENT_RUN_TAG} = '{run_id}'", ["attributes.start_time ASC"])

    def delete_files(self, run_id: str, name: str) -> bool:
        """Delete an artifact of a run, a file or a folder; return whether it succeeded."""
        return attempt(lambda: delete_artifacts(self.client.get_run(run_id).info.artifact_uri, self.uri, name))

    def tag(self, run_id: str, key: str, value: str) -> bool:
        """Set a tag of a run; return whether it succeeded."""
        return attempt(lambda: self.client.set_tag(run_id, key, value))

    def end(self, run_id: str, status: str, reason: str) -> bool:
        """End a run on behalf of a process that cannot, unless it has ended; return whether it succeeded."""

        def end() -> None:
            if self.client.get_run(run_id).info.status == "RUNNING":
                self.client.set_tag(run_id, REASON_TAG, reason[:5000])
                self.client.set_terminated(run_id, status)

        return attempt(end)

    def keep_file(self, run_id: str, path: Path, name: str) -> bool:
        """Log a non-empty file as an artifact of a run under this name; return whether it succeeded."""
        if not path.is_file() or not path.stat().st_size:
            return False
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(path, Path(folder) / name)
            return attempt(lambda: self.client.log_artifact(run_id, str(Path(folder) / name)))


@dataclass(frozen=True)
class StoredRun:
    """A run read from the tracking store, as it was at that moment.

    Attributes:
        store: The store that it was read from.
        experiment: Name of its MLflow experiment.
        status: "RUNNING", "FINISHED", "FAILED" or "KILLED".
        started: Start time in milliseconds since the epoch.
        ended: End time in milliseconds since the epoch; None while the run is RUNNING.
        profiles: What MLflow has on its data sets: of litlab's runs, JSON with the numbers of examples.
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
    ended: int | None = None
    profiles: Sequence[str] = ()

    @property
    def folder(self) -> Path | None:
        """The folder of the run's artifacts; None if they are on a server."""
        return artifact_folder(self.artifact_uri, self.store.uri)

    @cached_property
    def configuration(self) -> dict[str, str]:
        """What identifies the configuration: experiment, sweep stage, params and data digests, without seed and fold.

        Runs with equal configurations form one row of `compare`; see also comparison/equal_runs.py.
        """
        compared = shared_params(without_passive(self.params))
        params = {key: text_with_old_class_paths(compared[key]) for key in sorted(compared)}
        digests = " ".join(digest[:8] for _, digest in sorted(self.data_digests.items()))
        return {
            EXPERIMENT_KEY: self.experiment,
            STAGE_KEY: self.tags.get(STAGE_KEY, ""),
            **params,
            DATA_HASH_KEY: digests,
        }

    @property
    def data_digests(self) -> dict[str, str]:
        """SHA-256 of each split of the data, by the name of its tag; see `shared_digests`."""
        return shared_digests(self.tags, self.params)

    @property
    def repeat(self) -> str:
        """What tells the runs of one configuration apart: the seed, and the fold if there are folds."""
        return self.seed if (fold := fold_of(self.params)) is None else f"{self.seed}, fold {fold}"

    @cached_property
    def seed(self) -> str:
        """The run's seed, or its run id if it recorded none."""
        recorded = [self.tags.get(SEED_TAG), *(self.params.get(key) for key in SEED_PARAMS)]
        return next((str(value) for value in recorded if value), self.run_id)

    def file(self, name: str) -> Path:
        """Return the path of an artifact for reading: the original if it is on this machine, else a local copy.

        Raises:
            UserError: The run has no such artifact.
        """
        from mlflow.exceptions import MlflowException

        if self.folder is not None and (self.folder / name).exists():
            return self.folder / name
        if self.folder is not None and not self.folder.exists():
            raise UserError(
                f"the files of run {self.run_id} ({self.status}) are missing: there is no {self.folder}. If they were "
                "moved, move them there"
            )
        try:
            return Path(self.store.client.download_artifacts(self.run_id, name))
        except (MlflowException, OSError) as error:
            parts = self.store.children(self.run_id) if PARENT_TAG in self.tags else []
            hint = f": it summarises other runs; name one, such as {parts[0].run_id}" if parts else ""
            raise UserError(f"run {self.run_id} ({self.status}) has no {name}{hint}") from error

    def names(self, folder: str) -> list[str]:
        """Return the names of the artifacts in a folder of the run, such as "checkpoints/last.ckpt"."""
        from mlflow.exceptions import MlflowException

        try:
            return [str(file.path) for file in self.store.client.list_artifacts(self.run_id, folder)]
        except (MlflowException, OSError):
            return []
