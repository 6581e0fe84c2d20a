"""Where runs are stored: tracking URIs, the database file, and importing MLflow's client."""

import importlib
import logging
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused_for_import

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
