"""A real PostgreSQL, a real MLflow server on it, and machines that share nothing else."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, RDBStorage

from sweeps.search.storage import open_storage

PROGRAM = "import sys; from pipelines.cli import main; sys.exit(main())"
ROOT = Path(__file__).resolve().parents[2]
# A host name, process numbers and a /proc of its own; the death of its first process is the end of all.
MACHINE = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
NAMED = 'hostname "$0" && exec "$@"'


class Postgres:
    """A server that takes anybody of this machine by its socket, and asks for a password over TCP."""

    password = "as.secret-as_can~be"

    def __init__(self, binaries: Path, folder: Path, port: int, someone: dict[str, Any]) -> None:
        self.folder, self.port = folder, port
        self._binaries, self._someone = binaries, someone

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **self._someone)

    def start(self) -> None:
        data, secret = str(self.folder / "data"), self.folder / "password"
        secret.write_text(self.password)
        if self._someone:
            shutil.chown(secret, "postgres")
        ways = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        settings = f"-k {self.folder} -c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off"
        self.run("initdb", "-D", data, "-U", "litlab", *ways, "--no-sync")
        self.run("pg_ctl", "-D", data, "-o", settings, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def dump(self, name: str) -> str:
        """All that a database holds, as text."""
        command = [str(self._binaries / "pg_dump"), "-h", str(self.folder), "-p", str(self.port), "-U", "litlab", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def create(self, name: str) -> str:
        """Make an empty database; returns its URL by the socket."""
        self.run("createdb", "-h", str(self.folder), "-p", str(self.port), "-U", "litlab", name)
        return f"postgresql+psycopg://litlab@/{name}?host={self.folder}&port={self.port}"

    def address(self, name: str) -> str:
        """The URL of a database over TCP, without the password."""
        return f"postgresql://litlab@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def server(free_port: Callable[[], int]) -> Iterator[Postgres]:
    """PostgreSQL, started for these tests; skips where there is none."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    pytest.importorskip("psycopg")
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    someone: dict[str, Any] = {}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        if "postgres" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("there is no user to run PostgreSQL")
        someone = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="litlab-pg-"))  # a short path, for the socket
    if someone:
        shutil.chown(folder, "postgres")
    postgres = Postgres(binaries[-1], folder, free_port(), someone)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server: Postgres) -> Callable[[str], str]:
    """Makes an empty database by name, and returns its URL."""
    return server.create


@pytest.fixture(scope="session")
def tracking(
    mlflow_server: Callable[..., Any], postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An MLflow server: runs in PostgreSQL, files in a folder that only it can reach."""
    with mlflow_server(tmp_path_factory.mktemp("server"), postgres("mlflow")) as server:
        yield server.uri


@pytest.fixture
def opened() -> Iterator[Callable[[str], BaseStorage]]:
    """Opens storages, and closes what Optuna leaves open."""
    every: list[BaseStorage] = []

    def open_one(url: str) -> BaseStorage:
        every.append(open_storage(url))
        return every[-1]

    yield open_one
    for storage in every:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for something to become true, and returns it."""

    def wait(condition: Callable[[], Any], seconds: float = 180) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.2)
        return found

    return wait


class Machine:
    """A computer of its own, as far as litlab can see: name, process numbers, home, folders; PostgreSQL and MLflow are
    elsewhere.
    """

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.folder = name, folder
        self._environment = {**environment, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        for part in ("home", "tmp", "work"):
            (folder / part).mkdir(parents=True)
        self._began: list[subprocess.Popen[str]] = []

    def litlab(self, *args: object) -> "subprocess.Popen[str]":
        """The command, as the first process of this machine; its output is in `out`, its errors in `err`."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            command = [*MACHINE, "sh", "-c", NAMED, self.name, sys.executable, "-c", PROGRAM, *map(str, args)]
            self._began.append(
                subprocess.Popen(
                    command,
                    env=self._environment,
                    cwd=self.folder / "work",
                    text=True,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            )
        return self._began[-1]

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def power_off(self) -> None:
        """End all its processes at once, none of which hears of it."""
        for process in self._began:
            process.kill()  # its first process dies with it, and all others with that
            process.wait(timeout=60)


@pytest.fixture
def machine(tmp_path: Path, tracking: str, server: Postgres) -> Iterator[Callable[[str], Machine]]:
    """Makes machines by name, which all use the same tracking server."""
    probe = subprocess.run([*MACHINE, "sh", "-c", NAMED, "probe", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"a machine of its own takes rights that are missing here: {probe.stderr.strip()}")
    kept = ("PATH", "LANG", "OMP_NUM_THREADS", "MPLCONFIGDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking, "COLUMNS": "200"}
    every: list[Machine] = []

    def make(name: str, **more: str) -> Machine:
        every.append(Machine(name, tmp_path / name, {**environment, **more}))
        return every[-1]

    yield make
    for each in every:
        each.power_off()
