"""Check that the databases of runs and studies are readable, undamaged and at the version of what is installed."""

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

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.uri import database_lock

TIMEOUT_S = 5.0
OPTUNA_FILE = "optuna.db"  # beside the runs' database, unless `litlab sweep --storage` names another


@dataclass(frozen=True)
class Schema:
    """The tables of a package in a database.

    Attributes:
        package: Name of the package.
        migrations: Folder of its Alembic migrations, in the package.
        command: Upgrades the tables of the URI that follows to the installed version.
    """

    package: str
    migrations: str
    command: tuple[str, ...]

    def revisions(self) -> list[str]:
        """Return all versions of the tables that the installed package knows, the newest first."""
        from alembic.script import ScriptDirectory

        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{self.package} is not installed")
        folder = Path(spec.submodule_search_locations[0]) / self.migrations
        return [str(script.revision) for script in ScriptDirectory(str(folder)).walk_revisions()]


RUNS = Schema("mlflow", "store/db_migrations", ("mlflow", "db", "upgrade"))
STUDIES = Schema("optuna", "storages/_rdb/alembic", ("optuna", "storage", "upgrade", "--storage"))
_MAIN = {"mlflow": "from mlflow.cli import cli as main", "optuna": "from optuna.cli import main"}


def check_runs_database(context: Context) -> Iterator[CheckResult]:
    """Check the database or the server that stores the runs."""
    database = context.database
    if database is not None:
        yield from _file(RUNS, database, context)
    elif context.uri.startswith("http"):
        yield from _server(context.uri)
    else:
        yield from _served_database(context.uri)


def check_studies(context: Context) -> Iterator[CheckResult]:
    """Check Optuna's database in the folder of the runs' database."""
    yield from _file(STUDIES, context.folder / OPTUNA_FILE, context)


def _file(schema: Schema, path: Path, context: Context) -> Iterator[CheckResult]:
    name = path.name
    if not path.exists():
        yield CheckResult(name, f"none yet at {path}; the first {'fit' if schema is RUNS else 'sweep'} creates it")
        return
    try:
        revision, damage = _inspect(path)
    except sqlite3.Error as error:
        yield failed(name, f"{path} cannot be read ({error}): {_rescue(path)}")
        return
    if damage:
        yield failed(name, f"{path} is damaged ({damage}): {_rescue(path)}")
    elif revision is None:
        yield _without_tables(name, path)
    else:
        yield from _tables(schema, path, revision, context)


def _inspect(path: Path) -> tuple[str | None, str]:
    """Return the version of the tables, None without tables, and a message about damage, "" without damage."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=TIMEOUT_S)) as database:
        (integrity,) = database.execute("PRAGMA quick_check(1)").fetchone()
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = (
            database.execute("SELECT version_num FROM alembic_version").fetchall()
            if "alembic_version" in tables
            else []
        )
    return (str(rows[0][0]) if rows else None), "" if integrity == "ok" else str(integrity)


def _rescue(path: Path) -> str:
    command = f"sqlite3 {path} .recover | sqlite3 NEW.db"
    return f"if no other program holds it, restore a copy, or recover what is left: {command}"


def _without_tables(name: str, path: Path) -> CheckResult:
    if path.stat().st_size == 0:
        return CheckResult(name, f"{path} is empty; its tables are created on first use")
    return failed(name, f"{path} belongs to another program: give another file with --tracking_uri, or move it away")


def _tables(schema: Schema, path: Path, revision: str, context: Context) -> Iterator[CheckResult]:
    name, known = path.name, schema.revisions()
    here = f"{schema.package} {version(schema.package)}"
    command = [*schema.command, f"sqlite:///{path}"]
    if revision == known[0]:
        yield CheckResult(name, f"undamaged, with the tables of {here} ({path}, {path.stat().st_size / 1e6:.1f} MB)")
    elif revision not in known:
        yield failed(name, f"{path} is of a newer {schema.package} than {here}: pip install -U {schema.package}")
    elif context.fix:
        yield _upgrade(schema, path, command)
    else:
        advice = f"{shlex.join(['cp', str(path), f'{path}.copy'])}, then {shlex.join(command)}"
        yield failed(name, f"its tables are older than {here}: litlab doctor --fix, or {advice}")


def _upgrade(schema: Schema, path: Path, command: list[str]) -> CheckResult:
    """Copy a database in its folder, then let its own package upgrade its tables."""
    copy = path.with_name(f"{path.name}.{datetime.now():%Y%m%d-%H%M%S}.copy")
    if shutil.disk_usage(path.parent).free < 3 * path.stat().st_size:
        return failed(path.name, f"not enough disk space to copy {path} and change its tables: free some first")
    try:
        with database_lock(f"sqlite:///{path}", timeout=TIMEOUT_S):
            _copy(path, copy)
            program = f"import sys; {_MAIN[schema.package]}; sys.exit(main())"
            arguments = [sys.executable, "-c", program, *command[1:]]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except TimeoutError:
        return failed(path.name, f"{path} is in use: stop the programs that use it, then litlab doctor --fix")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return failed(path.name, f"{shlex.join(command)} failed ({reason}); {copy} is the database as it was")
    return CheckResult(
        path.name, f"upgraded to {schema.package} {version(schema.package)}; the database as it was: {copy}", "fixed"
    )


def _copy(path: Path, copy: Path) -> None:
    """Copy a database by SQLite's own means: consistent, even if another process writes to it meanwhile."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _server(uri: str) -> Iterator[CheckResult]:
    shown, parts = redact_credentials(uri), urlsplit(uri)
    path = f"{parts.path.rstrip('/')}/version"
    version_url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path))
    try:
        with urllib.request.urlopen(version_url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (http, as store_uri checked)
            server_version = answer.read(100).decode(errors="replace").strip()
    except HTTPError as error:
        if error.code == 401:  # the check of the runs shows whether they are accepted
            yield CheckResult("server", f"{shown} answers, and requires a user name and a password")
        else:
            yield failed(
                "server", f"{shown} refuses ({error.code} {error.reason}): is it an MLflow server, at this address?"
            )
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        yield failed("server", f"{shown} does not answer ({reason}): start it, or check the network")
    else:
        yield CheckResult("server", f"{shown} answers: MLflow {server_version}; {version('mlflow')} is installed here")


def _served_database(uri: str) -> Iterator[CheckResult]:
    """Check a database server that is used without an MLflow server. Its administrator makes the copy."""
    from sqlalchemy import create_engine, text

    engine: Any = create_engine(uri)
    try:
        with engine.connect() as connection:
            revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()
    if revision == RUNS.revisions()[0]:
        yield CheckResult("database", f"{redact_credentials(uri)} has the tables of mlflow {version('mlflow')}")
    else:
        advice = f"back it up, then mlflow db upgrade {redact_credentials(uri)}"
        yield failed("database", f"its tables are not those of mlflow {version('mlflow')}: {advice}")
