"""A study has one controller: the process that holds the study's lock. Its death frees the lock.

- SQLite and journal files: a lock file beside the file.
- PostgreSQL: an advisory lock, which belongs to a connection. It is the only connection of the controller to the
  database, so a controller that has lost the lock cannot write either.
- MySQL: `GET_LOCK`, also of that connection. Not tested.
"""

import contextlib
import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runtime.environment import user
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.tracking.uri import NOT_WRITABLE
from sweeps.search.storage import open_storage, storage_file

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy import Connection

PREFIX = "litlab "  # of the name of a controller's connection
TAKE = {
    "postgresql": "select pg_try_advisory_lock(cast(:key as bigint))",
    "mysql": "select get_lock(concat('litlab ', :key), 0)",
}
HOLDER = {
    "postgresql": """
        select application_name, backend_start from pg_locks join pg_stat_activity using (pid)
        where locktype = 'advisory' and granted and objsubid = 1
        and database = (select oid from pg_database where datname = current_database())
        and (cast(classid as bigint) << 32) | cast(objid as bigint) = cast(:key as bigint)""",
    "mysql": """
        select concat('connection ', id, ' of ', user, ' from ', host), null from information_schema.processlist
        where id = is_used_lock(concat('litlab ', :key))""",
}
# Names the connection. By the keepalives, the server notices within 90 s that a controller's machine is gone.
SESSION = {
    "postgresql": """
        select set_config('application_name', :name, false), set_config('tcp_keepalives_idle', '60', false),
        set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false)""",
    "mysql": "select :name",
}
TRIES = 10  # a tenth of a second apart: the server needs a moment to end the connection of a process that was killed


def controller_name() -> str:
    """Return the name by which this process marks its trials and runs: HOST:PID:TIME."""
    return f"{platform.node()}:{os.getpid()}:{time.time():.0f}"


@contextlib.contextmanager
def sole_controller(url: str, study: str) -> Iterator["BaseStorage"]:
    """Open a storage as the only controller of one of its studies, which need not exist yet.

    Raises:
        UserError: Another process controls the study, its name is not a valid file name, or the storage cannot be
            opened.
    """
    if not re.fullmatch(r"\w[\w. -]*", study):
        raise UserError(f"study {study!r}: only letters, digits, '.', '_', '-' and spaces")
    file = storage_file(url)
    with _file_lock(file, study) if file else contextlib.nullcontext():
        storage = open_storage(url)
        with contextlib.nullcontext() if file else _connection_lock(storage, study):  # type: ignore[arg-type]
            yield storage


def controller_of(url: str, study: str, storage: "BaseStorage") -> str | None:
    """Return which process controls a study: "process PID of USER on HOST since TIME"; None if no process does.

    In a folder that cannot be written, it is the process that last noted it.

    Args:
        url: URL of the storage.
        study: Name of the study.
        storage: The storage, opened.
    """
    file = storage_file(url)
    if file is None:
        with storage.engine.connect() as connection:  # type: ignore[attr-defined]
            return _connected_holder(connection, study)
    try:
        with file_lock(_lock_path(file, study), timeout=0):
            return None
    except TimeoutError:
        return _noted_holder(file, study) or "another process"
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        return _noted_holder(file, study)


def _refusal(study: str, holder: str | None) -> UserError:
    return UserError(
        f"study {study} is being run by {holder or 'another process'}; litlab sweep status {study} shows it. "
        "A study has one controller: give it more --workers"
    )


@contextlib.contextmanager
def _file_lock(file: Path, study: str) -> Iterator[None]:
    """Hold the lock file of a study, with a note for others that says who holds it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(_lock_path(file, study), timeout=1))  # `controller_of` is brief
        except TimeoutError as error:
            raise _refusal(study, _noted_holder(file, study)) from error
        except OSError as error:
            raise UserError(f"--storage {file}: {error.strerror}") from error
        note = _note_path(file, study)
        try:
            note.write_text(f"{_own_name()} since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}")
            yield
        finally:
            note.unlink(missing_ok=True)


def _lock_path(file: Path, study: str) -> Path:
    return Path(f"{file}.{study}.lock")


def _note_path(file: Path, study: str) -> Path:
    return Path(f"{file}.{study}.holder")


def _noted_holder(file: Path, study: str) -> str | None:
    with contextlib.suppress(OSError):
        return _note_path(file, study).read_text() or None
    return None


def _own_name() -> str:
    return f"process {os.getpid()} of {user()} on {platform.node()}"


@contextlib.contextmanager
def _connection_lock(server: "RDBStorage", study: str) -> Iterator[None]:
    """Hold the lock of a study by a connection, and let the storage have no other: if it breaks, every use fails."""
    from sqlalchemy import event, text

    def refuse(*_: object) -> None:
        raise UserError(
            f"study {study}: the connection to its database broke, and with it the lock of the study. "
            "Run the same command again to continue."
        )

    server.engine.dispose()  # the connections that have created the tables
    try:
        with server.engine.begin() as connection:
            dialect = _dialect(connection)
            connection.execute(text(SESSION[dialect]), {"name": PREFIX + _own_name()})
            if not _take(connection, study):
                raise _refusal(study, _connected_holder(connection, study))
        event.listen(server.engine, "connect", refuse)
        yield
    finally:
        server.remove_session()
        server.engine.dispose()


def _take(connection: "Connection", study: str) -> bool:
    from sqlalchemy import text

    for _ in range(TRIES):
        if connection.scalar(text(TAKE[_dialect(connection)]), {"key": _key(connection, study)}):
            return True
        time.sleep(0.1)
    return False


def _connected_holder(connection: "Connection", study: str) -> str | None:
    """Return the process that holds the lock of a study, by the name and the start of its connection."""
    from sqlalchemy import text

    row = connection.execute(text(HOLDER[_dialect(connection)]), {"key": _key(connection, study)}).first()
    if row is None:
        return None
    name, since = row  # another user of the database sees no time
    return f"{name.removeprefix(PREFIX)} since {since.astimezone():%Y-%m-%d %H:%M:%S %z}" if since else str(name)


def _dialect(connection: "Connection") -> str:
    name = connection.dialect.name
    return "mysql" if name == "mariadb" else name


def _key(connection: "Connection", study: str) -> int:
    """Return the number of a study's lock: a hash of 64 bits of the names of its schema and the study."""
    name = f"{connection.dialect.default_schema_name}/{study}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
