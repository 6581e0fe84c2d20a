"""Optuna's storages: their URLs, how they are opened, and the locks that keep a study's controllers apart."""

import contextlib
import os
import platform
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import NOT_WRITABLE, database_file, database_lock, sqlite_uri
from sweeps.search.messages import show_warnings
from sweeps.search.optuna_internals import LOCK_ROW

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

LOCK_IDLE_S = 60  # PostgreSQL ends the lock of a controller that does nothing for so long: its machine is gone
LOCK_SPACE = 1_885_956_210  # the first key of our advisory locks in PostgreSQL; the second is the study's id
# Without keepalives, a connection to a PostgreSQL server that has vanished would wait for hours: seconds, and a count.
KEEPALIVE = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CLOCKS = {"postgresql": "extract(epoch from clock_timestamp())", "mysql": "unix_timestamp(now(6))"}


@dataclass(frozen=True)
class Storage:
    """Optuna's storage, with a lock and a clock that all controllers of its studies share.

    Attributes:
        optuna: The storage.
        journal: Path of a journal file; None for a database.
        server: The same storage if it is a database server.
    """

    optuna: "BaseStorage"
    journal: Path | None = None
    server: "RDBStorage | None" = None

    def now(self) -> float:
        """Return the seconds since 1970 by the server's clock, as those of machines may differ by minutes.

        Without a PostgreSQL or MySQL server, it is this machine's clock.
        """
        if self.server is None or (clock := CLOCKS.get(self.server.engine.dialect.name)) is None:
            return time.time()
        from sqlalchemy import text

        with self.server.engine.connect() as connection:
            return float(connection.scalar(text(f"select {clock}")))

    @contextlib.contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """Lock a study against its other controllers; the death of a controller releases its lock."""
        if self.journal is not None:
            with file_lock(f"{self.journal}.turn"):
                yield
        elif self.server is not None:
            from sqlalchemy import text

            key = {"space": LOCK_SPACE, "study": self.server.get_study_id_from_name(study)}
            with self.server.engine.begin() as connection:
                if self.server.engine.dialect.name == "postgresql":
                    connection.execute(text(f"set local idle_in_transaction_session_timeout = '{LOCK_IDLE_S}s'"))
                    connection.execute(text("select pg_advisory_xact_lock(:space, :study)"), key)
                else:
                    connection.execute(text(LOCK_ROW), key)
                yield
        else:  # SQLite: `sole_controller` leaves one controller
            yield


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


@contextlib.contextmanager
def sole_controller(path: Path | None, study: str) -> Iterator[None]:
    """Hold the lock of a study in a SQLite file, which takes one controller at a time.

    If `path` is None, several controllers may use the storage at once, and there is no lock.

    Raises:
        UserError: Another process holds it, or the study's name is not a valid file name.
    """
    if not re.fullmatch(r"\w[\w. -]*", study):
        raise UserError(f"study {study!r}: only letters, digits, '.', '_', '-' and spaces")
    if path is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(f"{path}.{study}.lock", timeout=1))  # `lock_holder` is brief
        except TimeoutError as error:
            raise UserError(
                f"study {study} is being run by {_holder(path, study)}; litlab sweep status {study} shows it. "
                "On SQLite a study has one controller: give it more --workers, or share a PostgreSQL --storage"
            ) from error
        except OSError as error:
            raise UserError(f"--storage {path}: {error.strerror}") from error
        note = Path(f"{path}.{study}.holder")
        try:
            note.write_text(f"process {os.getpid()} on {platform.node()}")
            yield
        finally:
            note.unlink(missing_ok=True)


def lock_holder(path: Path | None, study: str) -> str | None:
    """Return which process holds the lock of a study in a SQLite file; None if no process does.

    In a folder that cannot be written, it is the process that last noted it.
    """
    if path is None:
        return None
    try:
        with file_lock(f"{path}.{study}.lock", timeout=0):
            return None
    except TimeoutError:
        return _holder(path, study)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        return _holder(path, study) if Path(f"{path}.{study}.holder").exists() else None


def _holder(path: Path, study: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"{path}.{study}.holder").read_text()
    return "another process"


def open_storage(url: str) -> Storage:
    """Open Optuna's storage, given the URL of a database or the path of a journal file.

    Raises:
        UserError: It cannot be opened.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    show_warnings()
    path = sqlite_path(url)
    try:
        if "://" not in url:
            journal = Path(url).expanduser()
            return Storage(JournalStorage(JournalFileBackend(str(journal))), journal=journal)
        if path is None:
            server = _open_server(url)
            return Storage(server, server=server)
        with database_lock(url):  # two processes that create its tables at once would both crash
            return Storage(RDBStorage(sqlite_uri(path), engine_kwargs={"connect_args": {"timeout": 120}}))
    except Exception as error:  # a file that is not a journal raises errors of many kinds
        reason = first_line(error.__cause__ or error)
        raise UserError(f"--storage {redact_credentials(url)} cannot be opened: {reason}") from error


def _open_server(url: str) -> "RDBStorage":
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
