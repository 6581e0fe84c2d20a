"""Copy one run to another tracking store: params, tags, metrics with their history, inputs, models and artifacts.

Every step can be repeated: a copy that was interrupted is completed, and nothing is stored twice.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.runtime.text import redact_credentials
from pipelines.tracking.artifacts import artifact_folder
from pipelines.tracking.origin import process_tags
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COPIED_MODEL_TAG,
    COPIED_RUN_TAG,
    COPIED_STORE_TAG,
    COPYING_TAG,
    REMOVED_TAG,
    STOP_TAG,
    USER_TAG,
)
from pipelines.tracking.writer import MAX_BATCH, MAX_PARAMS

NOT_COPIED = (COPYING_TAG, REMOVED_TAG, STOP_TAG)


def original_id(run: StoredRun) -> str:
    """Return the id of the run that a run is a copy of; its own id if it is none."""
    return run.tags.get(COPIED_RUN_TAG, run.run_id)


def copy_run(run: StoredRun, target: Store, copy_id: str | None) -> str:
    """Copy a run, or complete its copy; return the id of the copy.

    Args:
        run: The run, which has ended.
        target: Where to copy it.
        copy_id: A copy that is not complete; None if there is none.

    Raises:
        MlflowException, OSError, UserError: A store or a file is unavailable. Another call completes the copy.
    """
    source = run.store.client.get_run(run.run_id)
    copy = _Copy(run, source, target)
    copy.open(copy_id)
    copy.log_params_and_metrics()
    copy.log_datasets()
    copy.log_models()
    copy.log_artifacts()
    copy.end()
    return copy.run_id


class _Copy:
    """A copy of a run in the making.

    Args:
        run: The run.
        source: The run as MLflow returns it.
        target: Where to copy it.
    """

    def __init__(self, run: StoredRun, source: Any, target: Store) -> None:
        self._run, self._source, self._target = run, source, target
        self._client = target.client
        self.run_id, self._experiment_id = "", ""

    def open(self, copy_id: str | None) -> None:
        """Create the copy, as an active run of this process, or continue one."""
        run, self._experiment_id = self._run, self._target.experiment_id(self._run.experiment)
        own = {**process_tags(), COPYING_TAG: "true", COPIED_RUN_TAG: original_id(run)}
        if copy_id is None:
            own |= {USER_TAG: run.tags[USER_TAG]} if USER_TAG in run.tags else {}
            created = self._client.create_run(self._experiment_id, run.started, own, run.name)
            self.run_id = str(created.info.run_id)
            return
        self.run_id = copy_id
        for key, value in own.items():
            self._client.set_tag(copy_id, key, value)
        self._client.update_run(copy_id, status="RUNNING")

    def log_params_and_metrics(self) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(key, value) for key, value in self._run.params.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])
        waiting: list[Any] = []
        for key in self._run.metrics:
            history = self._run.store.client.get_metric_history(self._run.run_id, key)
            waiting += [Metric(key, point.value, point.timestamp, point.step) for point in history]
            while len(waiting) >= MAX_BATCH:
                self._client.log_batch(self.run_id, metrics=waiting[:MAX_BATCH])
                del waiting[:MAX_BATCH]
        if waiting:
            self._client.log_batch(self.run_id, metrics=waiting)

    def log_datasets(self) -> None:
        if datasets := self._source.inputs.dataset_inputs if self._source.inputs else []:
            self._client.log_inputs(self.run_id, datasets=list(datasets))

    def log_models(self) -> None:
        """Copy the models that the run has logged."""
        found = self._run.store.client.search_logged_models
        query = f"source_run_id = '{self._run.run_id}'"
        outputs = self._source.outputs.model_outputs if self._source.outputs else []
        steps = {output.model_id: output.step for output in outputs}
        for model in found([self._run.experiment_id], query):
            self._log_model(model, steps.get(model.model_id))

    def _log_model(self, model: Any, step: int | None) -> None:
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        copied = self._client.search_logged_models([self._experiment_id], f"source_run_id = '{self.run_id}'")
        existing = next((one for one in copied if one.tags.get(COPIED_MODEL_TAG) == model.model_id), None)
        copy = existing or self._client.create_logged_model(
            self._experiment_id,
            name=model.name,
            source_run_id=self.run_id,
            tags={**model.tags, COPIED_MODEL_TAG: model.model_id},
            params=dict(model.params or {}),
            model_type=model.model_type,
        )
        if copy.status != LoggedModelStatus.READY:
            with _files(model.artifact_location, self._run.store.uri) as folder:
                self._send_model(copy, folder)
            if model.status == LoggedModelStatus.READY:
                self._client.finalize_logged_model(copy.model_id, LoggedModelStatus.READY)
        outputs = self._client.get_run(self.run_id).outputs
        logged = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if step is not None and copy.model_id not in logged:
            self._client.log_outputs(self.run_id, [LoggedModelOutput(copy.model_id, step)])

    def _send_model(self, copy: Any, folder: Path) -> None:
        """Send the files of a model, of which `MLmodel` names the model and the run that it belongs to."""
        from mlflow.models import Model

        if not folder.is_dir():
            return
        self._client.log_model_artifacts(copy.model_id, str(folder))
        if (folder / "MLmodel").is_file():
            described = Model.load(str(folder / "MLmodel"))
            described.artifact_path, described.model_id = copy.artifact_location, copy.model_id
            described.run_id = self.run_id
            with tempfile.TemporaryDirectory() as part:
                described.save(str(Path(part) / "MLmodel"))
                self._client.log_model_artifact(copy.model_id, str(Path(part) / "MLmodel"))

    def log_artifacts(self) -> None:
        with _files(self._run.artifact_uri, self._run.store.uri) as folder:
            if folder.is_dir() and any(folder.iterdir()):
                self._client.log_artifacts(self.run_id, str(folder))

    def end(self) -> None:
        """Give the copy the tags, the status and the end of the run: from now on it is complete."""
        from mlflow.entities import RunTag

        tags = {key: value for key, value in self._run.tags.items() if key not in NOT_COPIED}
        source = tags.get(COPIED_STORE_TAG, redact_credentials(self._run.store.uri))
        tags |= {COPIED_RUN_TAG: original_id(self._run), COPIED_STORE_TAG: source}
        surplus = process_tags().keys() - tags.keys()
        entities = [RunTag(key, value) for key, value in tags.items()]
        for start in range(0, len(entities), MAX_PARAMS):
            self._client.log_batch(self.run_id, tags=entities[start : start + MAX_PARAMS])
        self._client.set_terminated(self.run_id, self._run.status, self._run.ended)
        for key in (*surplus, COPYING_TAG):
            self._client.delete_tag(self.run_id, key)


def link_copies(run: StoredRun, copy: StoredRun, copies: Mapping[str, str], keys: tuple[str, ...]) -> None:
    """Let the tags of a copy that name other runs name their copies, as far as there are some.

    Args:
        run: The run.
        copy: Its copy.
        copies: Ids of copies by the ids of their runs.
        keys: The tags.
    """
    for key in keys:
        named = run.tags.get(key, "")
        if named in copies and copy.tags.get(key) != copies[named]:
            copy.store.client.set_tag(copy.run_id, key, copies[named])


@contextmanager
def _files(artifact_uri: str, tracking_uri: str) -> Iterator[Path]:
    """Yield a folder with artifacts: the original if they are on this machine, else a download."""
    folder = artifact_folder(artifact_uri, tracking_uri)
    if folder is not None:
        yield folder
        return
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as place:
        path = download_artifacts(artifact_uri=artifact_uri, dst_path=place, tracking_uri=tracking_uri)
        yield Path(path)
