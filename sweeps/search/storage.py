"""Optuna's storages: their URLs, and how they are opened."""

import contextlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_file, database_lock, sqlite_uri
from sweeps.search.messages import show_warnings

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

SERVERS = ("postgresql", "mysql", "mariadb")
# Without keepalives, a connection to a PostgreSQL server that has vanished would wait for hours: seconds, and a count.
KEEPALIVE = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def storage_url(url: str | None, store: Store) -> str:
    """Return the URL of the storage: the given one, or else optuna.db next to the runs' database.

    A SQLite file gets its absolute path, so that one file has one lock.

    Raises:
        UserError: It is the runs' database itself, or in memory.
    """
    url = url or sqlite_uri((store.folder or project_folder()) / "optuna.db")
    path = sqlite_path(url)
    in_memory = path.name == ":memory:" if path else url.startswith("sqlite")
    if in_memory or (path is not None and path.is_dir()):
        raise UserError(f"--storage {url}: expected a file, sqlite:///FILE")
    if url == store.uri or (path is not None and path == sqlite_path(store.uri)):
        raise UserError(f"--storage {redact_credentials(url)} is MLflow's database; Optuna needs one of its own")
    return sqlite_uri(path) if path is not None else url


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite storage, or None for any other storage."""
    file = database_file(url)
    return file.resolve() if file else None


def storage_file(url: str) -> Path | None:
    """Return the file of a SQLite storage or the journal file, or None for a server."""
    return sqlite_path(url) if "://" in url else Path(url).expanduser().resolve()


def open_storage(url: str) -> "BaseStorage":
    """Open Optuna's storage, given the URL of a database or the path of a journal file.

    Raises:
        UserError: It cannot be opened.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    show_warnings()
    file = storage_file(url)
    try:
        if file is None:
            return _open_server(url)
        if "://" not in url:
            return JournalStorage(JournalFileBackend(str(file)))
        with database_lock(url):  # two processes that create its tables at once would both crash
            return RDBStorage(sqlite_uri(file), engine_kwargs={"connect_args": {"timeout": 120}})
    except Exception as error:  # a file that is not a journal raises errors of many kinds
        reason = first_line(error.__cause__ or error)
        raise UserError(f"--storage {redact_credentials(url)} cannot be opened: {reason}") from error


def _open_server(url: str) -> "RDBStorage":
    """Open a server's storage. Of two processes that create its tables at once, one fails and finds them there."""
    from optuna.storages import RDBStorage
    from sqlalchemy import make_url
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    given = make_url(url)
    if (server := given.get_backend_name()) not in SERVERS:
        raise UserError(f"expected SQLite, a journal file, PostgreSQL or MySQL, not {server}")
    keepalive = KEEPALIVE if server == "postgresql" else {}
    settings = {"connect_args": {name: value for name, value in keepalive.items() if name not in given.query}}
    for _ in range(5):
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=settings)
        time.sleep(random.random())
    return RDBStorage(url, engine_kwargs=settings)
