"""Where studies are kept, and who may drive one: Optuna's storages, and a lock for those that need it."""

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
from pipelines.runtime.process import pid_namespace
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

TURN_S = 60  # after which PostgreSQL ends the turn of a controller that does nothing: its machine is gone
# A connection to PostgreSQL whose other end is gone without a word would wait for hours: seconds, and how often.
PATIENCE = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def url_of(given: str | None, store: Store) -> str:
    """The one given, or else optuna.db beside the runs' database; a SQLite file by its absolute path.

    Raises:
        UserError: It is that database itself, or in memory.
    """
    url = given or f"sqlite:///{(store.folder or project_folder()) / 'optuna.db'}"
    path = sqlite_path(url)
    if path is not None and (path.name == ":memory:" or path.is_dir()):
        raise UserError(f"--storage {url}: expected a file, sqlite:///FILE")
    if url == store.uri or (path is not None and path == sqlite_path(store.uri)):
        raise UserError(f"--storage {redact_credentials(url)} is MLflow's database; Optuna needs one of its own")
    return f"sqlite:///{path}" if path is not None else url


class StudyLock:
    """Who drives a study: the lock of a SQLite file's study, and this process's name among controllers."""

    def __init__(self, path: Path | None) -> None:
        self.name = f"{platform.node()}:{os.getpid()}:{time.time():.0f}-{pid_namespace()}"
        self._path = path

    @contextlib.contextmanager
    def alone(self, study: str) -> Iterator[None]:
        """Hold the study; nothing to hold where the storage can tell controllers apart.

        Raises:
            UserError: Another process holds it, or its name would not do as a file's.
        """
        if not re.fullmatch(r"\w[\w. -]*", study):
            raise UserError(f"study {study!r}: only letters, digits, '.', '_', '-' and spaces")
        if self._path is None:
            yield
            return
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self._path}.{study}.lock", timeout=1)  # who only asks holds it for a moment
        try:
            lock.acquire()
        except Timeout as error:
            who = holder(self._path, study) or "another process"
            raise UserError(
                f"study {study} is being run by {who}; litlab sweep status {study} shows it. "
                "On SQLite a study has one controller: give --workers to it, or share a PostgreSQL --storage"
            ) from error
        except OSError as error:
            raise UserError(f"--storage {self._path}: {error.strerror}") from error
        note = _note(self._path, study)
        try:
            note.write_text(f"process {os.getpid()} on {platform.node()}")
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()


def _note(path: Path, study: str) -> Path:
    return Path(f"{path}.{study}.holder")


def holder(path: Path | None, study: str) -> str | None:
    """Who holds a study of a SQLite file now; None if nobody does."""
    if path is None:
        return None
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.{study}.lock", blocking=False)
    try:
        with lock:
            return None
    except Timeout:
        with contextlib.suppress(OSError):
            return _note(path, study).read_text()
        return "another process"


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite storage; None for any other."""
    scheme, _, place = url.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    return Path(place.removeprefix("/").partition("?")[0]).expanduser().resolve()


def open_storage(url: str) -> "BaseStorage":
    """Optuna's storage: a database URL, or the path of a journal file.

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
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=120):  # two processes that create its tables at once would both crash
            return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 120}})
    except Exception as error:  # whatever comes of a file that is no journal, too
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--storage {redact_credentials(url)} cannot be opened: {reason}") from error


def _open_database(url: str) -> "BaseStorage":
    """A server's; of two processes that create its tables at once, one fails and finds them there."""
    from optuna.storages import RDBStorage
    from sqlalchemy import make_url
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    settings = {"pool_pre_ping": True, "connect_args": {}}
    if make_url(url).get_backend_name() == "postgresql":
        settings["connect_args"] = {name: value for name, value in PATIENCE.items() if name not in make_url(url).query}
    for _ in range(5):
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=settings)
        time.sleep(random.random())
    return RDBStorage(url, engine_kwargs=settings)


def clock(storage: "BaseStorage") -> float:
    """Seconds since 1970 by a clock that all controllers share: the server's, where there is one and it is known how.

    Those of machines may differ by minutes.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import text

    said = {"postgresql": "extract(epoch from clock_timestamp())", "mysql": "unix_timestamp(now(6))"}
    backend = getattr(storage, "_backend", storage)  # inside Optuna's cache
    if isinstance(backend, RDBStorage) and (now := said.get(backend.engine.dialect.name)):
        with backend.engine.connect() as connection:
            return float(connection.scalar(text(f"select {now}")))
    return time.time()


@contextlib.contextmanager
def turn(storage: "BaseStorage", study_id: int) -> Iterator[None]:
    """Let the controllers of a study do what this surrounds one after another; the death of one ends its turn."""
    from filelock import FileLock
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages._rdb.models import StudyDirectionModel
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy import select, text

    if isinstance(storage, JournalStorage) and isinstance(storage._backend, JournalFileBackend):
        with FileLock(f"{storage._backend._file_path}.turn"):
            yield
    elif isinstance(storage, RDBStorage) and storage.engine.dialect.name != "sqlite":
        row = StudyDirectionModel  # the only one of a study that Optuna itself never locks
        with storage.engine.begin() as connection:
            if storage.engine.dialect.name == "postgresql":
                connection.execute(text(f"set local idle_in_transaction_session_timeout = '{TURN_S}s'"))
            connection.execute(select(row.study_id).where(row.study_id == study_id).with_for_update())
            yield
    else:  # a SQLite file's study is held by one controller anyway
        yield
