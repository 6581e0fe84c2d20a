"""Register a run's model in MLflow's model registry."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.existing import existing_store
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMAND_TAG, EXPERIMENT_TAG, SEED_TAG, SELECTED, STAGE_TAG, is_summary

MAX_LISTED = 6  # runs that an error message lists
# Tags of a run that say where its model comes from.
_ORIGIN_TAGS = re.compile(r"litlab\.(experiment|config_hash|command)|seed|study|(git|version|data\.sha256)\..+")


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        is_new: Whether this call created the version.
        tracking_uri: The store, with the password if it has one.
        alias: The alias that now points to this version, or None.
        previous_version: The version that the alias pointed to before, or "".
    """

    name: str
    version: str
    run_id: str
    is_new: bool
    tracking_uri: str
    alias: str | None = None
    previous_version: str = ""

    @property
    def loading_code(self) -> str:
        """Python code that loads this version in any process, without the store's password."""
        reference = f"{self.name}@{self.alias}" if self.alias else f"{self.name}/{self.version}"
        return f"""import mlflow

mlflow.set_tracking_uri("{redact_credentials(self.tracking_uri)}")
model = mlflow.pytorch.load_model("models:/{reference}")"""


def register_model(
    run: StoredRun | str, name: str, *, alias: str | None = None, tracking_uri: str | None = None
) -> RegisteredModel:
    """Register the model of a run as a new version, unless the run already has a version of that name.

    Args:
        run: A run that has a model, as read from the store or by its id.
        name: Name of the registered model, which is created if missing.
        alias: Name for the version, such as "champion". Another version that has it loses it.
        tracking_uri: The store of the run and of the registry.

    Raises:
        UserError: The run has no model, or the name or the alias is invalid.
    """
    from mlflow.exceptions import MlflowException

    check_names(name, alias)
    run = find_run(existing_store(tracking_uri), run) if isinstance(run, str) else run
    store, run_id, model_id = run.store, run.run_id, _model_id(run)
    try:
        versions = store.client.search_model_versions(f"run_id = '{run_id}'")
        existing = [version for version in versions if version.name == name]
        version = max(existing, key=lambda one: int(one.version), default=None) or _create_version(run, name, model_id)
    except MlflowException as error:
        raise UserError(f"model {name!r} cannot be registered: {first_line(error)}") from error
    previous = ""
    try:
        if alias:
            previous = str(store.client.get_registered_model(name).aliases.get(alias, ""))
            store.client.set_registered_model_alias(name, alias, str(version.version))
    except MlflowException as error:
        created = f"{name} version {version.version} is registered"
        raise UserError(f"{created}, but not its --alias {alias}: {first_line(error)}") from error
    return RegisteredModel(
        name=name,
        version=str(version.version),
        run_id=run_id,
        is_new=not existing,
        tracking_uri=store.uri,
        alias=alias,
        previous_version=previous,
    )


def can_export(run: StoredRun) -> bool:
    """Return whether a run has no model only because litlab could not export it before it saw a batch."""
    is_trial = run.tags.get(STAGE_TAG) == "search"
    return run.status == "FINISHED" and not is_summary(run.tags) and not is_trial and not _model_outputs(run)


def check_names(name: str, alias: str | None) -> None:
    """Refuse names that MLflow would refuse or could not resolve, before anything is created."""
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise UserError(f"NAME {name!r}: only letters, digits, '.', '_', '-' and spaces, as in models:/NAME/1")
    if alias is None:
        return
    if not re.fullmatch(r"[\w-]{1,255}", alias):
        raise UserError(f"--alias {alias!r}: only letters, digits, '_' and '-'")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise UserError(f"--alias {alias}: MLflow reserves it for versions; choose another, such as champion")


def _create_version(run: StoredRun, name: str, model_id: str) -> Any:
    """Create a version, an entity of MLflow, of a registered model, which is created if missing."""
    from mlflow.exceptions import MlflowException

    client = run.store.client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with _default_tracking_uri(run.store):
        return client.create_model_version(
            name,
            f"models:/{model_id}",  # MLflow's own form: it keeps the model's id and finds the files itself
            run_id=run.run_id,
            model_id=model_id,
            tags={key: value for key, value in run.tags.items() if _ORIGIN_TAGS.fullmatch(key)},
            description=_describe(run),
        )


@contextmanager
def _default_tracking_uri(store: Store) -> Iterator[None]:
    """Set MLFLOW_TRACKING_URI: MLflow's registry in a database looks for the model in the default store."""
    before = dict(os.environ)
    os.environ["MLFLOW_TRACKING_URI"] = store.uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        os.environ |= before


def _describe(run: StoredRun) -> str:
    """Return a version's results and origin in Markdown. The MLflow UI lists versions with the first 30 characters."""
    name, seed = run.tags.get(EXPERIMENT_TAG, ""), run.tags.get(SEED_TAG, "")
    tested = [f"{key} {value:.4f}" for key, value in test_metrics(run.metrics, run.tags).items()]
    selected = [f"- {key} {value:.4f}" for key, value in sorted(run.metrics.items()) if key.startswith(f"{SELECTED}/")]
    title = f"{', '.join(tested)}: {name}, seed {seed}, run {run.run_id}"
    return "\n".join([title, "", f"    {run.tags.get(COMMAND_TAG, '')}", "", "At the selected epoch:", "", *selected])


def _model_id(run: StoredRun) -> str:
    """Return the id of the last model that a run has logged."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    outputs = _model_outputs(run)
    if not outputs:
        raise UserError(_no_model(run))
    try:
        model = run.store.client.get_logged_model(outputs[-1].model_id)
    except MlflowException as error:
        raise UserError(f"the model of run {run.run_id} cannot be read: {first_line(error)}") from error
    if model.status != LoggedModelStatus.READY:
        raise UserError(f"the model of run {run.run_id} is {model.status}: it was not saved completely")
    return str(model.model_id)


def _model_outputs(run: StoredRun) -> list[Any]:
    """Return the references to a run's models, the last one last."""
    outputs = run.store.client.get_run(run.run_id).outputs
    return sorted(outputs.model_outputs, key=lambda output: output.step) if outputs else []


def _no_model(run: StoredRun) -> str:
    """Return the error message for a run without a model, with runs to register instead."""
    if is_summary(run.tags):
        prefix = f"run {run.run_id} summarises other runs and has no model of its own"
        with_model = [child for child in run.store.children(run.run_id) if _model_outputs(child)]
        if not with_model:
            return f"{prefix}, and none of its runs has one; litlab compare {run.run_id} shows them"
        lines = [f"  {child.run_id}  {child.name}" for child in with_model[:MAX_LISTED]]
        rest = [f"  and {len(with_model) - MAX_LISTED} more"] if len(with_model) > MAX_LISTED else []
        return "\n".join([f"{prefix}; these of its runs have one (litlab compare {run.run_id}):", *lines, *rest])
    if run.status != "FINISHED":
        return f"run {run.run_id} is {run.status} and has no model: only a run that was tested has one"
    if run.tags.get(STAGE_TAG) == "search":
        return (
            f"run {run.run_id} is a trial of a search, which is not tested and has no model; the runs that confirm the "
            f"study's best have one: litlab compare {run.experiment} --filter \"tags.{STAGE_TAG} = 'confirm'\""
        )
    return f"run {run.run_id} has no model"
