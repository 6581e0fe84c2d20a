"""Whether the databases of runs and of studies can be read, are whole, and have the tables of what is installed."""

import importlib.util
import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit

from pipelines.diagnostics.finding import Finding, Place, todo
from pipelines.runtime.text import redact_credentials

PATIENCE_S = 5.0
OPTUNA = "optuna.db"  # beside the runs' database, unless `litlab sweep --storage` names another


@dataclass(frozen=True)
class Kind:
    """Whose tables a database has.

    Attributes:
        package: That reads and writes them.
        migrations: The folder in the package that says how they came to be, with Alembic.
        command: Brings the tables of the URI that follows to the version that is installed.
    """

    package: str
    migrations: str
    command: tuple[str, ...]

    def revisions(self) -> list[str]:
        """All versions of the tables that the installed package knows, the newest first."""
        from alembic.script import ScriptDirectory

        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(f"{self.package} is not installed")
        folder = Path(found.submodule_search_locations[0]) / self.migrations
        return [str(one.revision) for one in ScriptDirectory(str(folder)).walk_revisions()]


RUNS = Kind("mlflow", "store/db_migrations", ("mlflow", "db", "upgrade"))
STUDIES = Kind("optuna", "storages/_rdb/alembic", ("optuna", "storage", "upgrade", "--storage"))
_MAIN = {"mlflow": "from mlflow.cli import cli as main", "optuna": "from optuna.cli import main"}


def runs(place: Place) -> Iterator[Finding]:
    """The database or the server that runs are kept in."""
    database = place.database
    if database is not None:
        yield from _file(RUNS, database, place)
    elif place.uri.startswith("http"):
        yield from _server(place.uri)
    else:
        yield from _served_database(place.uri)


def studies(place: Place) -> Iterator[Finding]:
    """Optuna's database beside that of the runs."""
    yield from _file(STUDIES, place.folder / OPTUNA, place)


def _file(kind: Kind, path: Path, place: Place) -> Iterator[Finding]:
    name = path.name
    if not path.exists():
        yield Finding(name, f"none yet at {path}; the first {'fit' if kind is RUNS else 'sweep'} makes it")
        return
    try:
        revision, damage = _look_into(path)
    except sqlite3.Error as error:
        yield todo(name, f"{path} cannot be read ({error}): {_rescue(path)}")
        return
    if damage:
        yield todo(name, f"{path} is damaged ({damage}): {_rescue(path)}")
    elif revision is None:
        yield _without_tables(name, path)
    else:
        yield from _tables(kind, path, revision, place)


def _look_into(path: Path) -> tuple[str | None, str]:
    """The version of the tables, None where there are none; what is damaged, in words."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE_S)) as database:
        (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = (
            database.execute("SELECT version_num FROM alembic_version").fetchall()
            if "alembic_version" in tables
            else []
        )
    return (str(rows[0][0]) if rows else None), "" if said == "ok" else str(said)


def _rescue(path: Path) -> str:
    return (
        f"if no other program holds it, put a copy back, or save what is left: sqlite3 {path} .recover | sqlite3 NEW.db"
    )


def _without_tables(name: str, path: Path) -> Finding:
    if path.stat().st_size == 0:
        return Finding(name, f"{path} is empty; its tables are made when it is used")
    return todo(name, f"{path} is a database of something else: name another file with --tracking_uri, or move it away")


def _tables(kind: Kind, path: Path, revision: str, place: Place) -> Iterator[Finding]:
    name, known = path.name, kind.revisions()
    here = f"{kind.package} {version(kind.package)}"
    command = [*kind.command, f"sqlite:///{path}"]
    if revision == known[0]:
        yield Finding(name, f"whole, with the tables of {here} ({path}, {path.stat().st_size / 1e6:.1f} MB)")
    elif revision not in known:
        yield todo(name, f"{path} was made by a newer {kind.package} than {here}: pip install -U {kind.package}")
    elif place.fix:
        yield _upgrade(kind, path, command)
    else:
        advice = f"{shlex.join(['cp', str(path), f'{path}.copy'])}, then {shlex.join(command)}"
        yield todo(name, f"its tables are older than {here}: litlab doctor --fix, or {advice}")


def _upgrade(kind: Kind, path: Path, command: list[str]) -> Finding:
    """Copy a database beside itself, then let its own package bring its tables up to date."""
    from filelock import FileLock, Timeout

    kept = path.with_name(f"{path.name}.{datetime.now():%Y%m%d-%H%M%S}.copy")
    if shutil.disk_usage(path.parent).free < 3 * path.stat().st_size:
        return todo(path.name, f"no room for a copy of {path} and for changing its tables: make some first")
    try:
        with FileLock(f"{path}.lock", timeout=PATIENCE_S):
            _copy(path, kept)
            program = f"import sys; {_MAIN[kind.package]}; sys.exit(main())"
            done = subprocess.run(
                [sys.executable, "-c", program, *command[1:]], capture_output=True, text=True, check=False
            )
    except Timeout:
        return todo(path.name, f"{path} is in use: end what uses it, then litlab doctor --fix")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return todo(path.name, f"{shlex.join(command)} failed ({reason}); {kept} is the database as it was")
    return Finding(path.name, f"brought to {kind.package} {version(kind.package)}; as it was: {kept}", "fixed")


def _copy(path: Path, kept: Path) -> None:
    """Copy a database as SQLite does it: whole, whoever writes to it meanwhile."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(kept)) as target:
        source.backup(target)


def _server(uri: str) -> Iterator[Finding]:
    shown, place = redact_credentials(uri), urlsplit(uri)
    asked = urlunsplit(place._replace(netloc=place.netloc.rpartition("@")[2], path=f"{place.path.rstrip('/')}/version"))
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:  # noqa: S310 (http, as store_uri has seen)
            said = answer.read(100).decode(errors="replace").strip()
    except HTTPError as error:
        if error.code == 401:  # the line of the runs says whether it is content
            yield Finding("server", f"{shown} answers, and asks for a name and a password")
        else:
            yield todo("server", f"{shown} refuses ({error.code} {error.reason}): is it MLflow's, and of this address?")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        yield todo("server", f"{shown} does not answer ({reason}): start it, or see to the network")
    else:
        yield Finding("server", f"{shown} answers: MLflow {said}; here is {version('mlflow')}")


def _served_database(uri: str) -> Iterator[Finding]:
    """A database server that MLflow uses without a server of its own; who looks after it makes the copy."""
    from sqlalchemy import create_engine, text

    engine: Any = create_engine(uri)
    try:
        with engine.connect() as connection:
            revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()
    if revision == RUNS.revisions()[0]:
        yield Finding("database", f"{redact_credentials(uri)} has the tables of mlflow {version('mlflow')}")
    else:
        advice = f"make a copy, then mlflow db upgrade {redact_credentials(uri)}"
        yield todo("database", f"its tables are not those of mlflow {version('mlflow')}: {advice}")
