"""A real PostgreSQL server, for tests that need one."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.mlflow_server import free_tcp_port


class Postgres:
    """A server that trusts connections by its socket and requires a password over TCP."""

    password = "as.secret-as_can~be"

    def __init__(self, binaries: Path, folder: Path, port: int, account: dict[str, Any]) -> None:
        self.folder, self.port = folder, port
        self._binaries, self._account = binaries, account

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        quiet = {**os.environ, "PGOPTIONS": "--client-min-messages=warning"}
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, env=quiet, **self._account)

    def start(self) -> None:
        data, secret = str(self.folder / "data"), self.folder / "password"
        secret.write_text(self.password)
        if self._account:
            shutil.chown(secret, "postgres")
        authentication = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        self.run("initdb", "-D", data, "-U", "litlab", *authentication, "--no-sync")
        self._control("start")

    def _control(self, verb: str) -> None:
        settings = f"-k {self.folder} -c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self.run("pg_ctl", "-D", data, "-o", settings, "-l", log, "-m", "fast", "-w", verb)

    def restart(self) -> None:
        self._control("restart")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def dump(self, name: str) -> str:
        """Return the content of a database as SQL."""
        command = [str(self._binaries / "pg_dump"), "-h", str(self.folder), "-p", str(self.port), "-U", "litlab", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def create(self, name: str) -> str:
        """Create an empty database, in place of one that another test left; return its URL by the socket."""
        connection = ["-h", str(self.folder), "-p", str(self.port), "-U", "litlab"]
        self.run("dropdb", "--if-exists", "--force", *connection, name)
        self.run("createdb", *connection, name)
        return f"postgresql+psycopg://litlab@/{name}?host={self.folder}&port={self.port}"

    def address(self, name: str) -> str:
        """Return the URL of a database over TCP, without the password."""
        return f"postgresql://litlab@127.0.0.1:{self.port}/{name}"


def missing() -> str:
    """Return why no server can be started here; "" if one can."""
    if not _binaries():
        return "PostgreSQL is not installed"
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "there is no user postgres to run PostgreSQL"
    return ""


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server, which ends with the block."""
    account: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="litlab-pg-"))  # a short path, for the socket
    if account:
        shutil.chown(folder, "postgres")
    postgres = Postgres(_binaries()[-1], folder, free_tcp_port(), account)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder)


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))
