"""The files of a run."""

from collections.abc import Iterator

from pipelines.tracking.store import StoredRun


def file_names(run: StoredRun) -> list[str]:
    """Return the names of all files of a run, such as "checkpoints/best.ckpt", sorted; none if its store is lost."""
    from mlflow.exceptions import MlflowException

    if run.folder is not None:
        return sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    try:
        return sorted(_listed(run, None))
    except (MlflowException, OSError):
        return []


def _listed(run: StoredRun, folder: str | None) -> Iterator[str]:
    for file in run.store.client.list_artifacts(run.run_id, folder):
        if file.is_dir:
            yield from _listed(run, file.path)
        else:
            yield str(file.path)
