"""Where runs are stored: tracking URIs, and the file, folder and lock of a local database."""

import errno
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.text import redact_credentials

LOCK_TIMEOUT_S = 120.0
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(.*?)(\?[^/?]+=[^/?]*)?", re.DOTALL)  # the file, and the options of a URL
_ESCAPED = "sqlite+pysqlite"  # the scheme of a URI whose file name is percent-encoded


def store_uri(given: str | None = None) -> str:
    """Return the tracking URI: `given`, else MLFLOW_TRACKING_URI, else mlflow.db in the project's folder.

    A relative path becomes absolute. A file name with "?" or "%" is percent-encoded.

    Raises:
        UserError: It is neither a database nor a server.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(project_folder() / "mlflow.db")
    scheme = urlparse(uri).scheme.partition("+")[0]
    if file := database_file(uri):
        options = _SQLITE.fullmatch(uri)
        return sqlite_uri(file) + ((options and options[2]) or "")
    if scheme not in ("http", "https", "postgresql", "mysql", "mssql", "databricks"):
        raise UserError(
            f"tracking_uri {redact_credentials(uri)!r}: expected sqlite:///FILE, a database URI, or http(s)://SERVER"
        )
    return uri


def sqlite_uri(file: Path) -> str:
    """Return the URI of a SQLite file for SQLAlchemy, which decodes "%" and ends a file name at "?".

    Raises:
        UserError: The installed SQLAlchemy cannot open a file of that name.
    """
    name = str(file)
    if not {"?", "%"} & set(name):
        return f"sqlite:///{name}"
    from sqlalchemy import make_url

    for uri in (f"{_ESCAPED}:///{quote(name)}", f"sqlite:///{name}"):  # before SQLAlchemy 2.1, nothing was decoded
        if make_url(uri).database == name:
            return uri
    raise UserError(f"{name}: SQLAlchemy before 2.1 cannot open a file with '?' in its path; rename the folder")


def tracking_uri_arguments(uri: str) -> list[str]:
    """Return the arguments `--tracking_uri URI`, without a password; none if the URI is the default."""
    return [] if uri == store_uri() else ["--tracking_uri", redact_credentials(uri)]


def view_command(uri: str, page: str = "") -> str:
    """Return the command that shows the runs of a database in the MLflow UI, or the address of a server's own UI.

    In a notebook, it is a call of Python.

    Args:
        uri: The tracking URI.
        page: What follows the address of a server: by default its first page.
    """
    from pipelines.runtime.notebook import in_notebook

    if uri.startswith("http"):
        return f"{redact_credentials(uri).rstrip('/')}{page}"
    if in_notebook():
        return "litlab.ui()" if uri == store_uri() else f"litlab.ui(tracking_uri={redact_credentials(uri)!r})"
    return shlex.join(["litlab", "ui", *tracking_uri_arguments(uri)])


def runs_page(experiment_id: str) -> str:
    """Return what follows the address of a server of MLflow: the page of an experiment's runs."""
    return f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"  # else a page about language models


def database_file(uri: str) -> Path | None:
    """Return the absolute path of a SQLite file; None for a server.

    A "?" that a folder's name follows is part of the path, as the user wrote it. An escape such as "%20" is decoded if
    there is no folder of the name as it is written.
    """
    match = _SQLITE.fullmatch(uri)
    if match is None:
        return None
    file, decoded = Path(match[1]).expanduser().absolute(), Path(unquote(match[1])).expanduser().absolute()
    if uri.startswith(f"{_ESCAPED}:") or (decoded.parent.is_dir() and not file.parent.is_dir()):
        return decoded
    return file


def is_writable(uri: str) -> bool:
    """Return whether this user may write to a local database and its folder; True for a server."""
    file = database_file(uri)
    return file is None or (os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK)))


def folder_of(uri: str) -> Path | None:
    """Return the folder of a local database; None for a server."""
    file = database_file(uri)
    return file.parent if file else None


def local_path(artifact_uri: str) -> Path | None:
    """Return the folder that an artifact URI names if it is on this machine; None if it is on a server."""
    parsed = urlparse(artifact_uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


@contextmanager
def database_lock(uri: str, *, timeout: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Lock a local database for a step that must not run in two processes at once, such as creating its tables.

    Does nothing for a server, and for a database in a folder that is not writable, which can only be read.
    """
    file = database_file(uri)
    with ExitStack() as stack:
        if file is not None:
            try:
                stack.enter_context(file_lock(f"{file}.lock", timeout=timeout))
            except OSError as error:
                if error.errno not in NOT_WRITABLE or not file.is_file():
                    raise
        yield
