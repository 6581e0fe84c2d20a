"""MLflow's client: its settings, its import, the connection to a store, and requests that may fail."""

import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.mlflow_internals import DATABASE_LOGGER, DATABASE_STORE, follow_moved_artifacts
from pipelines.tracking.uri import database_lock

IMPORTING = threading.RLock()  # held while MLflow is imported, because its modules import one another in circles
# MLflow reads these when it is imported or first used. Values that the user has set take precedence.
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # litlab prints the run's address, without the password
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits 245 s for a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",  # it uses Python's global generator, which a training may use too
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # loading a model never runs code from the file
}


def import_client(uri: str) -> Any:
    """Import and return MlflowClient, and what it needs for this store. One thread at a time."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("urllib3.connectionpool", DATABASE_LOGGER):  # the caller reports errors in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with IMPORTING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # in a notebook without ipywidgets, which it may use
        from mlflow import MlflowClient

        if not uri.startswith(("http", "databricks")):
            importlib.import_module(DATABASE_STORE)
            follow_moved_artifacts()
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
        raise UserError(unreachable(uri, error)) from error


def unreachable(uri: str, error: Exception) -> str:
    """Return the error message for a store that cannot be reached."""
    return f"the tracking store {redact_credentials(uri)} cannot be reached: {first_line(error)}"


def attempt(request: Callable[[], object]) -> bool:
    """Make a request to a store; return whether it succeeded."""
    from mlflow.exceptions import MlflowException

    try:
        request()
    except (MlflowException, OSError):
        return False
    return True


def all_pages(request: Callable[[str | None], Any], limit: int | None = None) -> list[Any]:
    """Return the items of all pages of a paginated request, which takes the token of a page; only the first `limit`."""
    page = request(None)
    items = list(page)
    while page.token and (limit is None or len(items) < limit):
        page = request(page.token)
        items += page
    return items[:limit]


def unbounded(value: float) -> float:
    """Return infinity for the largest number, which MLflow stores in its place."""
    return value if abs(value) < sys.float_info.max else value * 2
