"""Create experiments and runs in a tracking store, each exactly once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.artifacts import FOLDER
from pipelines.tracking.client import attempt
from pipelines.tracking.deleted import is_deleted, restore_experiment
from pipelines.tracking.tags import EXPERIMENT_KIND_TAG, KEY_TAG, NOTE_TAG

MAX_NAME = 200  # bytes of an experiment name, which is also a folder name; file systems allow 255


def check_experiment_name(name: str) -> None:
    """Refuse a name that is not a valid folder name.

    Raises:
        UserError: It is not.
    """
    if not re.fullmatch(r"\w[\w. -]*", name) or len(name.encode()) > MAX_NAME:
        raise UserError(
            f"name {name!r}: only letters, digits, '.', '_', '-' and spaces, at most {MAX_NAME} bytes; "
            "choose another with --name"
        )


def find_or_create_experiment(client: Any, name: str, folder: Path | None, description: str = "") -> str:
    """Return the id of an experiment. It is created if missing, and restored without its runs if deleted.

    Args:
        client: MLflow's.
        name: Its name.
        folder: Folder of a local database, where its artifacts will be.
        description: What the MLflow UI says of it, unless it has a description.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        location = (folder / FOLDER / name).as_uri() if folder else None
        kind = {EXPERIMENT_KIND_TAG: "custom_model_development"}  # else the UI opens its GenAI pages
        note = {NOTE_TAG: description} if description else {}
        return str(client.create_experiment(name, artifact_location=location, tags={**kind, **note}))
    if is_deleted(found):
        restore_experiment(client, found.experiment_id)
    if description and NOTE_TAG not in found.tags:
        attempt(lambda: client.set_experiment_tag(found.experiment_id, NOTE_TAG, description))
    return str(found.experiment_id)


def create_run(client: Any, experiment_id: str, name: str, tags: Mapping[str, str], *, local: bool, retry: bool) -> Any:
    """Create a run and return MLflow's info of it.

    Args:
        client: MLflow's.
        experiment_id: Its experiment.
        name: Its name.
        tags: Its tags, with a random KEY_TAG, by which it is found if the response is lost.
        local: Whether no response can be lost.
        retry: Whether an earlier call with the same key may have created it.

    Raises:
        MlflowException: The store refuses it or cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    key, lost = f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'", None
    if retry and (found := client.search_runs([experiment_id], key)):
        return found[0].info
    try:
        run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
        if local:
            return run.info
    except MlflowException as error:
        lost = error
    found = client.search_runs([experiment_id], key)
    if lost is not None and not found:
        raise lost
    for duplicate in found[1:]:  # MLflow repeats a request whose response is lost
        client.delete_run(duplicate.info.run_id)
    return found[0].info
