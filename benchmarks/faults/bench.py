"""Set-up that all kinds of faults share: a scratch folder with projects, `litlab` commands, and rows of the table."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from commands import Command, process_tree, run_command

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.signals import signal_handlers
from pipelines.tracking.store import Store

PRELOAD = [
    "sweeps.workers.worker",
    "pipelines.training.resume",
    "pipelines.evaluation.figures",
]

PROGRAM = "from pipelines.cli import console\nconsole()\n"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        fault: The injected fault.
        times: How often it was injected, as text.
        outcome: What happened, with the numbers that were checked.
        lost: Failed checks, one line each.
        tried: Whether the fault could be injected on this machine.
    """

    fault: str
    times: str
    outcome: str = ""
    lost: list[str] = field(default_factory=list)
    tried: bool = True


@dataclass(frozen=True)
class Project:
    """A folder with a tracking database."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@dataclass
class Tally:
    """Number of kills and failed checks, updated by several threads.

    Attributes:
        target: Number of kills to reach.
        killed: Number of kills by victim or moment.
        lost: Failed checks, one line each.
        lock: Held while the other attributes are changed.
    """

    target: int
    killed: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kills(self) -> int:
        return self.killed.total()


class Bench:
    """Set-up of one kind of fault.

    Args:
        kind: Name of the kind.
        folder: Scratch folder.
        seed: Seed of all random moments.
        quick: Whether one or two faults of each kind are enough.
        data_dir: Folder that may contain MNIST.
        step: Called after each fault, for the progress bar.
    """

    def __init__(
        self, kind: str, folder: Path, seed: int, quick: bool, data_dir: Path, step: Callable[[], object]
    ) -> None:
        self.kind = kind
        self.folder, self.seed, self.quick, self.data_dir, self.step = folder, seed, quick, data_dir, step
        self.cores = cpu_count()
        self._commands: list[Command] = []
        self._closed = False
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        folder.mkdir(parents=True, exist_ok=True)
        self.program = folder / "run_litlab.py"  # Lightning runs this for further devices; must not hide the package
        self.program.write_text(PROGRAM)

    def warm_up(self) -> None:
        """Start the fork server, which imports what all commands need, and create an empty tracking database once."""
        from multiprocessing import forkserver

        with signal_handlers(signal.SIG_IGN, signal.SIGINT):
            forkserver.ensure_running()
        if not (self.folder / "empty/mlflow.db").is_file():
            Store(f"sqlite:///{self.folder / 'new/mlflow.db'}")
            (self.folder / "new").rename(self.folder / "empty")
        self.litlab("--help", uri="").wait()  # waits until the server has imported everything

    def random(self, *purpose: object) -> random.Random:
        """Return a random generator for this purpose, so that the order of threads does not change the draws."""
        return random.Random(f"{self.seed} {purpose}")

    def subfolder(self, name: str) -> Path:
        """Return a folder that only this kind uses, because a deleted database may still be open in this process."""
        return self.folder / "projects" / self.kind / name

    def project(self, name: str) -> Project:
        """Create a project whose database has its tables."""
        folder = self.subfolder(name)
        folder.mkdir(parents=True)
        shutil.copy(self.folder / "empty/mlflow.db", folder)
        return Project(folder)

    def copy(self, project: Project, name: str) -> Project:
        """Copy a project without active processes to another folder."""
        folder = self.subfolder(name)
        shutil.copytree(project.folder, folder)
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(change, (f"{project.folder}/", f"{folder}/"))
        for manifest in folder.glob("unsent/*/run.json"):
            manifest.write_text(manifest.read_text().replace(f"{project.folder}/", f"{folder}/"))
        return Project(folder)

    def litlab(
        self, *argv: str | Path, uri: str, environment: Mapping[str, str] | None = None, log: str = "log.txt"
    ) -> Command:
        """Start a `litlab` command in a preloaded process.

        Args:
            argv: The verb and its arguments.
            uri: Tracking store.
            environment: Environment variables to set.
            log: Name of the file, in the folder `logs`, that the output is appended to.
        """
        path = self.folder / "logs" / log
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        settings = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
        settings |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "COLUMNS": "200"}
        settings |= {"no_proxy": "127.0.0.1", **(environment or {})}
        arguments = ([str(self.program), *map(str, argv)], str(path), settings, str(self.folder))
        if self._closed:
            raise KeyboardInterrupt  # ends the thread of a kind that is being stopped
        command = Command(self._context.Process(target=run_command, args=arguments), path)
        self._commands.append(command)
        return command

    def sync_if_requested(self, refused: Command, project: Project) -> None:
        """Run `litlab sync` if `litlab resume` reports that the store does not know the run's final status."""
        if "To send it: litlab sync" in refused.output:
            self.litlab("sync", uri=project.uri).exit_code()

    def run_parallel(self, functions: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run functions in parallel, one per core, and return their results in order."""
        with ThreadPoolExecutor(self.cores) as pool:
            futures = [pool.submit(function) for function in functions]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise

    def close(self) -> None:
        """Kill all running commands and their descendants. No other command can be started."""
        self._closed = True
        for command in self._commands:
            if command.process.exitcode is None:
                for pid in process_tree(command.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def format_counts(numbers: Mapping[str, int]) -> str:
    """Format numbers such as "3 before the run existed, 20 during training"; "none" if all are 0."""
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number) or "none"


@contextlib.contextmanager
def record_errors(lost: list[str], name: str) -> Iterator[None]:
    """Count an exception of a check as a loss."""
    try:
        yield
    except Exception as error:
        lost.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
