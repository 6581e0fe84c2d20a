"""Remove runs with everything that belongs to them: MLflow's deletion, then their files, which MLflow would keep.

A removal that was interrupted can be repeated: children go before their parent, and a run is tagged and deleted before
its files.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import disk_use
from pipelines.runtime.text import first_line
from pipelines.tracking.artifacts import artifact_folder, check_own_artifacts
from pipelines.tracking.client import all_pages, unreachable
from pipelines.tracking.deleted import RunDeletedError, RunGoneError, is_deleted
from pipelines.tracking.families import Children, children_by_parent, with_descendants
from pipelines.tracking.mlflow_internals import artifact_bytes, delete_artifacts
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.run_log import RunLog, home_of, unsent_logs
from pipelines.tracking.run_names import find_run, look_up
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import HOST_TAG, PARENT_RUN_TAG, PROCESS_TAG, REMOVED_TAG, SWEEP_SUFFIX


@dataclass(frozen=True)
class Removal:
    """A run that is to be removed, and what goes with it.

    Attributes:
        run: The run.
        is_child: Whether it goes because its parent does.
        size: Bytes of its files.
        models: Its logged models, as MLflow returns them.
        unsent: The folders of its unsent data on this machine.
    """

    run: StoredRun
    is_child: bool
    size: int
    models: list[Any] = field(repr=False)
    unsent: list[RunLog] = field(repr=False)


def named_runs(store: Store, names: Iterable[str]) -> list[StoredRun]:
    """Return the runs that are named, also those that were deleted in MLflow and still have their files.

    Raises:
        UserError: See `find_run`; or a name is that of an experiment, for which there is `--experiment`.
    """
    found, experiments = [], set(store.experiment_names().values())
    for name in names:
        if {name, f"{name}{SWEEP_SUFFIX}"} & experiments and look_up(store, name, any_status=True) is None:
            raise UserError(f"{name} is no run, but an experiment or a study: litlab rm --experiment {name}")
        try:
            found.append(find_run(store, name, any_status=True))
        except RunDeletedError as error:
            found.append(store.read(store.client.get_run(error.run_id)))
    return found


def plan_removals(
    store: Store, runs: Sequence[StoredRun], *, named: bool, assume_dead: bool = False
) -> tuple[list[Removal], list[str]]:
    """Find out what the removal of runs takes with it, and refuse runs that are in use.

    Args:
        store: The tracking store.
        runs: The runs. The children of a run go with it.
        named: Whether the user named them: one that cannot be removed is then an error, and else it is left out.
        assume_dead: Whether the processes of RUNNING runs on other machines are known to be dead.

    Returns:
        What is to be removed, children before their parent; and why other runs are left out.

    Raises:
        UserError: A named run is alive, has a registered model, or was removed before.
    """
    from mlflow.exceptions import MlflowException

    try:
        plan = _Plan(store, runs, assume_dead=assume_dead)
        removals, refused = list[Removal](), list[str]()
        for run in runs:
            try:
                found = plan.removals(run)
            except UserError as error:
                if named:
                    raise
                refused.append(str(error))
                continue
            known = {removal.run.run_id for removal in removals}
            removals += [removal for removal in found if removal.run.run_id not in known]
    except (MlflowException, OSError) as error:
        raise UserError(unreachable(store.uri, error)) from error
    return removals, refused


class _Plan:
    """What is known about the runs that are to be removed: read once for all of them."""

    def __init__(self, store: Store, runs: Sequence[StoredRun], *, assume_dead: bool) -> None:
        self._store, self._assume_dead = store, assume_dead
        ids = sorted({run.experiment_id for run in runs})
        client = store.client
        self._children: Children = children_by_parent(store, ids, deleted=True)
        models = all_pages(lambda token: client.search_logged_models(ids, page_token=token)) if ids else []
        self._models = [model for model in models if model.source_run_id]
        self._versions = all_pages(lambda token: client.search_model_versions(page_token=token))
        self._unsent = unsent_logs(store.uri)

    def removals(self, run: StoredRun) -> list[Removal]:
        """Return the run's removal after those of its children.

        Raises:
            UserError: One of these runs cannot be removed, or nothing is left of the run.
        """
        family = with_descendants([run], self._children)
        removals = [self._removal(each, is_child=each is not run) for each in reversed(family)]
        for removal in removals:
            self._check(removal)
        if parent := run.tags.get(PARENT_RUN_TAG):
            self._check_parent(run, parent)
        left = [removal for removal in removals if not _is_complete(removal)]
        if not left:
            raise UserError(f"run {run.run_id} was removed on {run.tags[REMOVED_TAG][:10]}; nothing is left of it")
        return left

    def _removal(self, run: StoredRun, *, is_child: bool) -> Removal:
        models = [model for model in self._models if model.source_run_id == run.run_id]
        unsent = [log for log in self._unsent if log.run_id == run.run_id]
        size = disk_use(log.home for log in unsent)
        uris = [run.artifact_uri, *(model.artifact_location for model in models)]
        size += sum(_size(uri, self._store.uri) for uri in uris)
        return Removal(run, is_child, size, models, unsent)

    def _check(self, removal: Removal) -> None:
        run = removal.run
        check_ended(run, assume_dead=self._assume_dead)
        check_own_artifacts(run.artifact_uri, self._store.uri)
        ids = {model.model_id for model in removal.models}
        versions = [version for version in self._versions if version.run_id == run.run_id or version.model_id in ids]
        if versions:
            names = ", ".join(f"{version.name} version {version.version}" for version in versions)
            raise UserError(f"run {run.run_id} has a registered model, {names}: delete that version in MLflow first")

    def _check_parent(self, run: StoredRun, parent: str) -> None:
        """Refuse a run of a study, or of several seeds, that is being trained."""
        try:
            found = self._store.find(parent)
        except RunGoneError:
            return
        try:
            check_ended(found, assume_dead=self._assume_dead)
        except UserError as error:
            raise UserError(f"run {run.run_id} belongs to a run that is active: {error}") from error


def check_ended(run: StoredRun, *, assume_dead: bool) -> None:
    """Refuse a run whose process is alive, or may be alive on another machine.

    Raises:
        UserError: It is.
    """
    if run.status != "RUNNING":
        return
    if is_here(run.tags) and PROCESS_TAG in run.tags:
        if is_alive(run.tags):
            pid = run.tags[PROCESS_TAG].partition(":")[0]
            raise UserError(f"run {run.run_id} is running in process {pid}: litlab stop {run.run_id} stops it")
    elif not assume_dead:
        host = run.tags.get(HOST_TAG, "an unknown machine")
        raise UserError(
            f"run {run.run_id} is RUNNING on {host}, and this machine cannot check whether it is alive. If it is dead, "
            "add --dead"
        )


def _is_complete(removal: Removal) -> bool:
    """Return whether nothing is left of a run that was removed before."""
    is_left = removal.size or removal.models or removal.unsent
    run = removal.run
    return REMOVED_TAG in run.tags and not is_left and is_deleted(run.store.client.get_run(run.run_id).info)


def remove(removal: Removal) -> None:
    """Remove a run with its files. What is left after an error or an interruption is removed by another call.

    Raises:
        UserError: Something cannot be removed, or another process is sending the run.
    """
    from mlflow.exceptions import MlflowException

    run = removal.run
    try:
        with ExitStack() as stack:
            for log in removal.unsent:
                stack.enter_context(log.held())
            _delete_in_mlflow(run)
            for log in removal.unsent:
                log.remove()
        _delete_folder(home_of(run.store.uri, run.run_id))  # a removal that was interrupted may have left it
        for model in removal.models:
            _delete_files(model.artifact_location, run.store.uri, model.model_id)
            run.store.client.delete_logged_model(model.model_id)
        _delete_files(run.artifact_uri, run.store.uri, run.run_id)
    except (MlflowException, OSError) as error:
        message = f"run {run.run_id} cannot be removed completely: {first_line(error)}; repeat the command to go on"
        raise UserError(message) from error


def _delete_in_mlflow(run: StoredRun) -> None:
    """Tag a run as removed, and delete it. MLflow takes no tag of a run that is deleted already."""
    client = run.store.client
    current = client.get_run(run.run_id)
    if REMOVED_TAG not in current.data.tags:
        if is_deleted(current.info):
            client.restore_run(run.run_id)
        client.set_tag(run.run_id, REMOVED_TAG, datetime.now().astimezone().isoformat(timespec="seconds"))
    elif is_deleted(current.info):
        return
    client.delete_run(run.run_id)


def _size(artifact_uri: str, tracking_uri: str) -> int:
    folder = artifact_folder(artifact_uri, tracking_uri)
    return artifact_bytes(artifact_uri, tracking_uri) if folder is None else disk_use([folder])


def _delete_files(artifact_uri: str, tracking_uri: str, name: str) -> None:
    """Delete artifacts, with the folder that is named after their run or model."""
    folder = artifact_folder(artifact_uri, tracking_uri)
    if folder is None:
        delete_artifacts(artifact_uri, tracking_uri, None)
    else:
        _delete_folder(folder.parent if folder.parent.name == name else folder)


def _delete_folder(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
