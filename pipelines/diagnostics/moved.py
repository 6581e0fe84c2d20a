"""Check whether the database still names the folder of artifacts in which it lies, and correct it after a move."""

import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.diagnostics.databases import RUNS, TIMEOUT_S, copy_database, revision_of
from pipelines.runtime.errors import UserError
from pipelines.tracking.artifacts import Location
from pipelines.tracking.mlflow_internals import LOCATIONS
from pipelines.tracking.uri import database_lock, local_path, sqlite_uri


class Change(NamedTuple):
    """A path to correct, in a row of a table of the database.

    Attributes:
        project: The project's folder at the time when the path was recorded.
        uri: The new artifact URI.
    """

    table: str
    column: str
    row: int
    project: Path
    uri: str


def check_moved(context: Context) -> Iterator[CheckResult]:
    """Report paths of artifacts from before the project was moved or copied, and correct them if asked to."""
    database = context.database
    if database is None or not database.is_file():
        return
    changes = find_changes(database)
    if not changes:
        return
    counts = Counter(change.table.replace("_", " ") for change in changes)
    what = ", ".join(f"{number} {table}" for table, number in counts.items())
    old = ", ".join(sorted({str(change.project) for change in changes}))
    if not context.fix:
        message = f"{what} are recorded in {old}; litlab finds them in {database.parent}, MLflow itself does not"
        yield failed("moved", f"{message}: litlab doctor --fix corrects the paths, after a copy of {database.name}")
        return
    try:
        copy = relocate(database)
    except UserError as error:
        yield failed("moved", str(error))
    else:
        message = f"paths of {what} are now in {database.parent}, not in {old}; the database as it was: {copy}"
        yield CheckResult("moved", message, "fixed")


def find_changes(database: Path) -> list[Change]:
    """Return the paths to correct: those of projects whose artifacts, at least some, are beside the database now.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as connection:
        return _changes(connection, database)


def _changes(connection: sqlite3.Connection, database: Path) -> list[Change]:
    found = []
    for table, column in LOCATIONS:
        for row, uri in connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"):  # noqa: S608
            path = local_path(uri)
            location = Location.of(path, database) if path is not None else None
            if location is not None and location.current(database) == location.here:
                found.append((Change(table, column, row, location.project, location.here.as_uri()), location))
    moved = {location.project for _, location in found if location.here.exists()}
    return [change for change, location in found if location.project in moved]


def relocate(database: Path) -> Path:
    """Correct the paths of experiments, runs and models after a copy of the database, all or none.

    Artifacts that lie elsewhere on purpose are left alone; see `Location.current`.

    Args:
        database: A SQLite file of MLflow.

    Returns:
        The copy.

    Raises:
        UserError: The tables are not those of the installed MLflow, the database is in use, or the disk is full.
    """
    try:
        with database_lock(sqlite_uri(database), timeout=TIMEOUT_S):
            if (revision := revision_of(database)) != RUNS.revisions()[0]:
                known = f"only that of mlflow {version('mlflow')} is known"
                raise UserError(f"{database} has the schema version {revision}, and {known}: nothing is changed")
            copy = copy_database(database)
            with closing(sqlite3.connect(database, timeout=TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for change in _changes(connection, database):
                    command = f"UPDATE {change.table} SET {change.column} = ? WHERE rowid = ?"  # noqa: S608
                    connection.execute(command, (change.uri, change.row))
                connection.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"the paths in {shlex.quote(str(database))} cannot be corrected: {error}") from error
    return copy
