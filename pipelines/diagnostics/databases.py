"""Check that the databases of runs and studies are readable, undamaged and at the version of what is installed."""

import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from datetime import datetime
from http.client import HTTPException
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.uri import database_lock, sqlite_uri

TIMEOUT_S = 5.0
OPTUNA_FILE = "optuna.db"  # beside the runs' database, unless `litlab sweep --storage` names another


class Schema(NamedTuple):
    """The tables of a package in a database.

    Attributes:
        package: Name of the package.
        migrations: Folder of its Alembic migrations, in the package.
        main: The function of its command line.
        command: Upgrades the tables of the URI that follows.
    """

    package: str
    migrations: str
    main: str
    command: tuple[str, ...]

    def upgrade_command(self, path: Path) -> list[str]:
        return [*self.command, sqlite_uri(path)]

    def revisions(self) -> list[str]:
        """Return all versions of the tables that the installed package knows, the newest first."""
        from alembic.script import ScriptDirectory

        folder = distribution(self.package).locate_file(f"{self.package}/{self.migrations}")
        return [str(script.revision) for script in ScriptDirectory(str(folder)).walk_revisions()]


RUNS = Schema("mlflow", "store/db_migrations", "mlflow.cli:cli", ("mlflow", "db", "upgrade"))
STUDIES = Schema("optuna", "storages/_rdb/alembic", "optuna.cli:main", ("optuna", "storage", "upgrade", "--storage"))


def check_runs_database(context: Context) -> list[CheckResult]:
    """Check the database or the server that stores the runs."""
    if context.database is not None:
        return [_check_file(RUNS, context.database, context)]
    return [_check_server(context.uri) if context.uri.startswith("http") else _check_served_database(context.uri)]


def check_studies(context: Context) -> list[CheckResult]:
    """Check Optuna's database in the folder of the runs' database."""
    return [_check_file(STUDIES, context.folder / OPTUNA_FILE, context)]


def _check_file(schema: Schema, path: Path, context: Context) -> CheckResult:
    name, here = path.name, f"{schema.package} {version(schema.package)}"
    if not path.exists() or not path.stat().st_size:
        return CheckResult(name, f"none yet at {path}; the first {'fit' if schema is RUNS else 'sweep'} creates it")
    try:
        revision = revision_of(path)
    except sqlite3.Error as error:
        rescue = f"restore a copy, or recover what is left: sqlite3 {path} .recover | sqlite3 NEW.db"
        return failed(name, f"{path} cannot be read ({error}): if no other program holds it, {rescue}")
    known = schema.revisions()
    if revision is None:
        move = "give another file with --tracking_uri, or move it away"
        return failed(name, f"{path} belongs to another program: {move}")
    if revision == known[0]:
        return CheckResult(name, f"undamaged, with the tables of {here} ({path}, {path.stat().st_size / 1e6:.1f} MB)")
    if revision not in known:
        return failed(name, f"{path} is of a newer {schema.package} than {here}: pip install -U {schema.package}")
    if context.fix:
        return _upgrade(schema, path)
    advice = f"{shlex.join(['cp', str(path), f'{path}.copy'])}, then {shlex.join(schema.upgrade_command(path))}"
    return failed(name, f"its tables are older than {here}: litlab doctor --fix, or {advice}")


def revision_of(path: Path) -> str | None:
    """Return the version of the tables, or None if they are not versioned.

    Raises:
        sqlite3.Error: The file is damaged, locked, or not a database.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=TIMEOUT_S)) as database:
        (integrity,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if integrity != "ok":
            raise sqlite3.DatabaseError(f"damaged: {integrity}")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall():
            return None
        (row,) = database.execute("SELECT version_num FROM alembic_version").fetchall()
    return str(row[0])


def copy_database(path: Path) -> Path:
    """Copy a database in its folder, under a name with the time; return the copy.

    Raises:
        sqlite3.Error, OSError: It cannot be read, or the disk is full.
    """
    copy = path.with_name(f"{path.name}.{datetime.now():%Y%m%d-%H%M%S}.copy")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)  # consistent, even if another process writes to it meanwhile
    return copy


def _upgrade(schema: Schema, path: Path) -> CheckResult:
    """Copy a database in its folder, then let its own package upgrade its tables."""
    if shutil.disk_usage(path.parent).free < 3 * path.stat().st_size:
        return failed(path.name, f"not enough disk space to copy {path} and change its tables: free some first")
    command = schema.upgrade_command(path)
    module, _, function = schema.main.partition(":")
    program = f"import sys; from {module} import {function} as main; sys.exit(main())"
    try:
        with database_lock(sqlite_uri(path), timeout=TIMEOUT_S):
            copy = copy_database(path)
            arguments = [sys.executable, "-c", program, *command[1:]]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except TimeoutError:
        return failed(path.name, f"{path} is in use: stop the programs that use it, then litlab doctor --fix")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return failed(path.name, f"{shlex.join(command)} failed ({reason}); {copy} is the database as it was")
    message = f"upgraded to {schema.package} {version(schema.package)}; the database as it was: {copy}"
    return CheckResult(path.name, message, "fixed")


def _check_server(uri: str) -> CheckResult:
    shown, parts = redact_credentials(uri), urlsplit(uri)
    path = f"{parts.path.rstrip('/')}/version"
    version_url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path))
    try:
        with urllib.request.urlopen(version_url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (http, as store_uri checked)
            server_version = answer.read(100).decode(errors="replace").strip()
    except HTTPError as error:
        if error.code == 401:  # the check of the runs shows whether they are accepted
            return CheckResult("server", f"{shown} answers, and requires a user name and a password")
        question = "is it an MLflow server, at this address?"
        return failed("server", f"{shown} refuses ({error.code} {error.reason}): {question}")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return failed("server", f"{shown} does not answer ({reason}): start it, or check the network")
    return CheckResult("server", f"{shown} answers: MLflow {server_version}; {version('mlflow')} is installed here")


def _check_served_database(uri: str) -> CheckResult:
    """Check a database server that is used without an MLflow server. Its administrator makes the copy."""
    from sqlalchemy import create_engine, text

    engine: Any = create_engine(uri)
    try:
        with engine.connect() as connection:
            revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()
    shown, here = redact_credentials(uri), f"mlflow {version('mlflow')}"
    if revision == RUNS.revisions()[0]:
        return CheckResult("database", f"{shown} has the tables of {here}")
    return failed("database", f"its tables are not those of {here}: back it up, then mlflow db upgrade {shown}")
