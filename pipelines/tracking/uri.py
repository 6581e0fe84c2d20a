"""Where runs are stored: tracking URIs, the database file, and importing MLflow's client."""

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.text import redact_credentials

LOCK_TIMEOUT_S = 120.0
IMPORTING = threading.RLock()  # held while MLflow is imported, whose modules import one another in circles
# Read by MLflow when it is imported or first used; what the user has set stays.
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # litlab says where a run is, and without the password
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits 245 s for a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",  # drawn from Python's generator, which a training may draw from
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # loading a model never runs code from the file
}


def store_uri(given: str | None = None) -> str:
    """The one given, else MLFLOW_TRACKING_URI, else mlflow.db in the project's folder; always absolute.

    Raises:
        UserError: It is neither a database nor a server.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_folder() / 'mlflow.db'}"
    scheme = urlparse(uri).scheme
    if scheme == "sqlite":
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).expanduser().absolute()}"
    if scheme.partition("+")[0] not in ("http", "https", "postgresql", "mysql", "mssql", "databricks"):
        raise UserError(f"tracking_uri {uri!r}: expected sqlite:///FILE, a database URI, or http(s)://SERVER")
    return uri


def tracking_uri_arguments(uri: str) -> list[str]:
    """Return the arguments `--tracking_uri URI`, without a password; none if the URI is the default."""
    return [] if uri == store_uri() else ["--tracking_uri", redact_credentials(uri)]


def database_file(uri: str) -> Path | None:
    """The file of a local database; None for a server."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def folder_of(uri: str) -> Path | None:
    """Where a local database lies; None for a server."""
    file = database_file(uri)
    return file.parent if file else None


def import_client(uri: str) -> Any:
    """MLflow's class of clients, with what it takes for this store; by one thread at a time."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("urllib3.connectionpool", "mlflow.store.db.utils"):  # whoever calls says it in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with IMPORTING, gc_paused_for_import("mlflow"):
        from mlflow import MlflowClient

        if not uri.startswith(("http", "databricks")):
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    return MlflowClient


def connect(uri: str) -> Any:
    """Return MLflow's client of a store; the tables of a new database are created.

    Raises:
        UserError: The database cannot be opened or the server does not answer.
    """
    MlflowClient = import_client(uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with database_lock(uri):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # creates the tables
            return client
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = redact_credentials(str(error).splitlines()[0])
        raise UserError(f"the runs at {redact_credentials(uri)} cannot be reached: {reason}") from error


@contextmanager
def database_lock(uri: str) -> Iterator[None]:
    """Hold the lock of a local database, for steps that crash if two processes take them at once, as creating tables.

    For a server nothing is locked.
    """
    file = database_file(uri)
    if file is None:
        yield
        return
    with file_lock(f"{file}.lock", timeout=LOCK_TIMEOUT_S):
        yield
