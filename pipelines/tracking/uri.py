"""Where runs are stored: tracking URIs, and the file, folder and lock of a local database."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.text import redact_credentials

LOCK_TIMEOUT_S = 120.0


def store_uri(given: str | None = None) -> str:
    """Return the tracking URI: `given`, else MLFLOW_TRACKING_URI, else mlflow.db in the project's folder.

    A relative path becomes absolute.

    Raises:
        UserError: It is neither a database nor a server.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_folder() / 'mlflow.db'}"
    scheme = urlparse(uri).scheme
    if scheme == "sqlite":
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).expanduser().absolute()}"
    if scheme.partition("+")[0] not in ("http", "https", "postgresql", "mysql", "mssql", "databricks"):
        raise UserError(
            f"tracking_uri {redact_credentials(uri)!r}: expected sqlite:///FILE, a database URI, or http(s)://SERVER"
        )
    return uri


def tracking_uri_arguments(uri: str) -> list[str]:
    """Return the arguments `--tracking_uri URI`, without a password; none if the URI is the default."""
    return [] if uri == store_uri() else ["--tracking_uri", redact_credentials(uri)]


def view_command(uri: str) -> str:
    """Return the command that shows the runs of a database in the MLflow UI, or the address of a server's own UI."""
    if uri.startswith("http"):
        return redact_credentials(uri)
    return shlex.join(["litlab", "ui", *tracking_uri_arguments(uri)])


def database_file(uri: str) -> Path | None:
    """Return the file of a local database; None for a server."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def folder_of(uri: str) -> Path | None:
    """Return the folder of a local database; None for a server."""
    file = database_file(uri)
    return file.parent if file else None


def local_path(artifact_uri: str) -> Path | None:
    """Return the folder of a run's artifacts if it is on this machine; None if they are on a server."""
    parsed = urlparse(artifact_uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


@contextmanager
def database_lock(uri: str, *, timeout: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Lock a local database for a step that must not run in two processes at once, such as creating its tables.

    Does nothing for a server.
    """
    file = database_file(uri)
    if file is None:
        yield
        return
    with file_lock(f"{file}.lock", timeout=timeout):
        yield
