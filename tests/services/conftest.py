"""Fixtures: a real PostgreSQL server, a real MLflow server on it, and simulated machines that share nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.search.storage import open_storage
from tests.postgres import Postgres, missing, running_postgres

pytest.register_assert_rewrite("tests.cluster_study")

PROGRAM = "import sys; from pipelines.cli import main; sys.exit(main())"
ROOT = Path(__file__).resolve().parents[2]
# Own host name, pid namespace and /proc; when its first process dies, all others are killed.
MACHINE = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
NAMED = 'hostname "$0" && exec "$@"'


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A PostgreSQL server for these tests; they are skipped where it is not installed."""
    pytest.importorskip("psycopg")
    if reason := missing():
        pytest.skip(reason)
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def postgres(server: Postgres) -> Callable[[str], str]:
    """Return a function that creates an empty database and returns its URL."""
    return server.create


@pytest.fixture(scope="session")
def tracking(
    mlflow_server: Callable[..., Any], postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URI of an MLflow server: runs in PostgreSQL, files in a folder that only the server uses."""
    with mlflow_server(tmp_path_factory.mktemp("server"), postgres("mlflow")) as server:
        yield server.uri


@pytest.fixture
def opened() -> Iterator[Callable[[str], Any]]:
    """Return a function that opens databases of Optuna, each once; connections that it leaves are closed at the end."""
    storages: dict[str, Any] = {}

    def open_url(url: str) -> Any:
        return storages[url] if url in storages else storages.setdefault(url, open_storage(url))

    yield open_url
    for storage in storages.values():
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Return a function that waits until a condition is true, and returns its value."""

    def wait(condition: Callable[[], Any], seconds: float = 180) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"the condition was not true within {seconds:g} s"
            time.sleep(0.2)
        return value

    return wait


class Machine:
    """A simulated machine: its own host name, pid namespace, home and folders. PostgreSQL and MLflow run outside."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.folder = name, folder
        self._environment = {**environment, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        for part in ("home", "tmp", "work"):
            (folder / part).mkdir(parents=True)
        self._processes: list[subprocess.Popen[str]] = []

    def litlab(self, *args: object) -> "subprocess.Popen[str]":
        """Start the command as the first process of this machine; its stdout is in `out`, its stderr in `err`."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            command = [*MACHINE, "sh", "-c", NAMED, self.name, sys.executable, "-c", PROGRAM, *map(str, args)]
            self._processes.append(
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
        return self._processes[-1]

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def power_off(self) -> None:
        """Kill all processes at once, without a signal that they could handle."""
        for process in self._processes:
            process.kill()  # unshare; its child dies with it, and all others with the child
            process.wait(timeout=60)


@pytest.fixture
def machine(tmp_path: Path, tracking: str, server: Postgres) -> Iterator[Callable[[str], Machine]]:
    """Return a function that creates a machine by name; all machines use the same tracking server."""
    probe = subprocess.run([*MACHINE, "sh", "-c", NAMED, "probe", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"unshare is not permitted here: {probe.stderr.strip()}")
    names = ("PATH", "LANG", "OMP_NUM_THREADS", "MPLCONFIGDIR")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking, "COLUMNS": "200"}
    machines: list[Machine] = []

    def make(name: str, **variables: str) -> Machine:
        machines.append(Machine(name, tmp_path / name, {**environment, **variables}))
        return machines[-1]

    yield make
    for each in machines:
        each.power_off()
