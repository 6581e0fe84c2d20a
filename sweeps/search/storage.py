"""Optuna's storages: their URLs, how they are opened, and the locks that keep a study's controllers apart."""

import contextlib
import os
import platform
import random
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.process import pid_namespace
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_lock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK_IDLE_S = 60  # PostgreSQL ends the lock of a controller that does nothing for so long: its machine is gone
# Without keepalives, a connection to a PostgreSQL server that has vanished would wait for hours: seconds, and a count.
KEEPALIVE = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def storage_url(url: str | None, store: Store) -> str:
    """Return the URL of the storage: the given one, or else optuna.db next to the runs' database.

    A SQLite file gets its absolute path, so that one file has one lock.

    Raises:
        UserError: It is the runs' database itself, or in memory.
    """
    url = url or f"sqlite:///{(store.folder or project_folder()) / 'optuna.db'}"
    path = sqlite_path(url)
    if path is not None and (path.name == ":memory:" or path.is_dir()):
        raise UserError(f"--storage {url}: expected a file, sqlite:///FILE")
    if url == store.uri or (path is not None and path == sqlite_path(store.uri)):
        raise UserError(f"--storage {redact_credentials(url)} is MLflow's database; Optuna needs one of its own")
    return f"sqlite:///{path}" if path is not None else url


class StudyLock:
    """The lock of a study in a SQLite file, and this process's name as a controller.

    Args:
        path: The SQLite file; None for a storage that several controllers may use at once, which needs no lock.

    Attributes:
        name: HOST:PID:TIME-NAMESPACE.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = f"{platform.node()}:{os.getpid()}:{time.time():.0f}-{pid_namespace()}"
        self._path = path

    @contextlib.contextmanager
    def acquire(self, study: str) -> Iterator[None]:
        """Hold the lock of a study.

        Raises:
            UserError: Another process holds it, or the study's name is not a valid file name.
        """
        if not re.fullmatch(r"\w[\w. -]*", study):
            raise UserError(f"study {study!r}: only letters, digits, '.', '_', '-' and spaces")
        if self._path is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(_lock_path(self._path, study), timeout=1))  # `lock_holder` is brief
            except TimeoutError as error:
                other = lock_holder(self._path, study) or "another process"
                raise UserError(
                    f"study {study} is being run by {other}; litlab sweep status {study} shows it. "
                    "On SQLite a study has one controller: give it more --workers, or share a PostgreSQL --storage"
                ) from error
            except OSError as error:
                raise UserError(f"--storage {self._path}: {error.strerror}") from error
            note = _note_path(self._path, study)
            try:
                note.write_text(f"process {os.getpid()} on {platform.node()}")
                yield
            finally:
                note.unlink(missing_ok=True)


def _lock_path(path: Path, study: str) -> Path:
    return Path(f"{path}.{study}.lock")


def _note_path(path: Path, study: str) -> Path:
    return Path(f"{path}.{study}.holder")


def lock_holder(path: Path | None, study: str) -> str | None:
    """Return which process holds the lock of a study in a SQLite file; None if no process does."""
    if path is None:
        return None
    try:
        with file_lock(_lock_path(path, study), timeout=0):
            return None
    except TimeoutError:
        with contextlib.suppress(OSError):
            return _note_path(path, study).read_text()
        return "another process"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite storage, or None for any other storage."""
    scheme, _, place = url.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    return Path(place.removeprefix("/").partition("?")[0]).expanduser().resolve()


def open_storage(url: str) -> "BaseStorage":
    """Open Optuna's storage.

    Args:
        url: URL of a database, or path of a journal file.

    Raises:
        UserError: It cannot be opened.
    """
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path = sqlite_path(url)
    try:
        if "://" not in url:
            return JournalStorage(JournalFileBackend(str(Path(url).expanduser())))
        if path is None:
            return _open_database(url)
        with database_lock(f"sqlite:///{path}"):  # two processes that create its tables at once would both crash
            return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 120}})
    except Exception as error:  # a file that is not a journal raises errors of many kinds
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--storage {redact_credentials(url)} cannot be opened: {reason}") from error


def _open_database(url: str) -> "BaseStorage":
    """Open a server's storage. Of two processes that create its tables at once, one fails and finds them there."""
    from optuna.storages import RDBStorage
    from sqlalchemy import make_url
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    settings = {"pool_pre_ping": True, "connect_args": {}}
    if make_url(url).get_backend_name() == "postgresql":
        settings["connect_args"] = {name: value for name, value in KEEPALIVE.items() if name not in make_url(url).query}
    for _ in range(5):
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=settings)
        time.sleep(random.random())
    return RDBStorage(url, engine_kwargs=settings)


def server_time(storage: "BaseStorage") -> float:
    """Return the seconds since 1970 by a clock that all controllers share; machines' clocks may differ by minutes.

    It is the server's clock on PostgreSQL and MySQL, else this machine's.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import text

    functions = {"postgresql": "extract(epoch from clock_timestamp())", "mysql": "unix_timestamp(now(6))"}
    backend = getattr(storage, "_backend", storage)  # inside Optuna's cache
    if isinstance(backend, RDBStorage) and (now := functions.get(backend.engine.dialect.name)):
        with backend.engine.connect() as connection:
            return float(connection.scalar(text(f"select {now}")))
    return time.time()


@contextlib.contextmanager
def study_lock(storage: "BaseStorage", study_id: int) -> Iterator[None]:
    """Hold a lock that the controllers of a study share; the death of a controller releases it."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages._rdb.models import StudyDirectionModel
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy import select, text

    if isinstance(storage, JournalStorage) and isinstance(storage._backend, JournalFileBackend):
        with file_lock(f"{storage._backend._file_path}.turn"):
            yield
    elif isinstance(storage, RDBStorage) and storage.engine.dialect.name != "sqlite":
        row = StudyDirectionModel  # the only one of a study that Optuna itself never locks
        with storage.engine.begin() as connection:
            if storage.engine.dialect.name == "postgresql":
                connection.execute(text(f"set local idle_in_transaction_session_timeout = '{LOCK_IDLE_S}s'"))
            connection.execute(select(row.study_id).where(row.study_id == study_id).with_for_update())
            yield
    else:  # SQLite: `StudyLock` leaves one controller
        yield
