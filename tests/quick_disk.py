"""Do not wait for the disk: importing this module switches off fsync and SQLite's syncs in the process.

A test that kills a process reads what the kernel has, which needs no sync; no test cuts the power. The tests, warm
processes (`tests.warm`) and the workers of sweeps import it; a Python that a test starts anew does not.
"""

import contextlib
import os
import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


def _no_sync(_: Any) -> None:
    """Replace `os.fsync`."""


def _switch_off_syncs(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        with contextlib.suppress(sqlite3.DatabaseError):  # the file is not a database; the first query reports it
            connection.execute("PRAGMA synchronous = OFF")


os.fsync = _no_sync
event.listen(Engine, "connect", _switch_off_syncs)
