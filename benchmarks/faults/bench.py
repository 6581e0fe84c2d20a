"""What all kinds of faults share: a scratch folder, projects in it, `litlab` commands, and rows of the table."""

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

from commands import Command, begin, family

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.signals import signal_handlers
from pipelines.tracking.store import Store

PRELOAD = [
    "sweeps.workers.worker",
    "pipelines.training.resume",
    "pipelines.evaluation.figures",
    "mlflow.store.tracking.sqlalchemy_store",
]
PRELOAD += ["mlflow.pytorch", "sklearn.datasets"]
PROGRAM = "import sys\nfrom pipelines.cli import main\nsys.exit(main())\n"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: What was done.
        times: How often, in words.
        found: What came out, with the figures of the checks.
        lost: What the checks missed, a line each.
        tried: Whether it could be tried here.
    """

    what: str
    times: str
    found: str = ""
    lost: list[str] = field(default_factory=list)
    tried: bool = True


@dataclass(frozen=True)
class Project:
    """A folder with a database of runs."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@dataclass
class Tally:
    """Kills, and what came of them; several threads speak of it.

    Attributes:
        wanted: After so many kills there are enough.
        killed: How many there were, by victim or moment.
        lost: What the checks missed, a line each.
    """

    wanted: int
    killed: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kills(self) -> int:
        return self.killed.total()


class Bench:
    """Where faults are tried.

    Args:
        kind: Of the faults, for names.
        folder: For all that is made.
        seed: Of every random moment.
        quick: Whether one or two of each are enough.
        data_dir: Where MNIST's files may be.
        step: Called whenever one of the things that are counted has been done.
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
        self.program = folder / "litlab.py"  # what Lightning starts for further devices
        self.program.write_text(PROGRAM)

    def warm_up(self) -> None:
        """Import once what all commands need, and make the tables of a database once."""
        from multiprocessing import forkserver

        with signal_handlers(signal.SIG_IGN, signal.SIGINT):
            forkserver.ensure_running()
        if not (self.folder / "empty/mlflow.db").is_file():
            Store(f"sqlite:///{self.folder / 'made/mlflow.db'}")
            (self.folder / "made").rename(self.folder / "empty")
        self.litlab("--help", uri="").wait()  # by then the server has imported all

    def random(self, *of: object) -> random.Random:
        """A generator of its own for each thing that is drawn, so that the order of threads changes nothing."""
        return random.Random(f"{self.seed} {of}")

    def place(self, name: str) -> Path:
        """A folder that no other kind has: a database that is gone may still be open in this process."""
        return self.folder / "projects" / self.kind / name

    def project(self, name: str) -> Project:
        """A new project, whose database has its tables."""
        folder = self.place(name)
        folder.mkdir(parents=True)
        shutil.copy(self.folder / "empty/mlflow.db", folder)
        return Project(folder)

    def copy(self, project: Project, name: str) -> Project:
        """The same project in another folder, none of whose processes is alive."""
        folder = self.place(name)
        shutil.copytree(project.folder, folder)
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(change, (f"{project.folder}/", f"{folder}/"))
        for note in folder.glob("unsent/*/run.json"):
            note.write_text(note.read_text().replace(f"{project.folder}/", f"{folder}/"))
        return Project(folder)

    def litlab(
        self, *argv: str | Path, uri: str, environment: Mapping[str, str] | None = None, log: str = "log.txt"
    ) -> Command:
        """Start a `litlab` command on these runs, warm.

        Args:
            argv: The verb, and its arguments.
            uri: Where runs are kept.
            environment: Changes.
            log: A file below the scratch folder to which what it prints is appended.
        """
        path = self.folder / "logs" / log
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        settings = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
        settings |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "COLUMNS": "200"}
        settings |= {"no_proxy": "127.0.0.1", **(environment or {})}
        arguments = ([str(self.program), *map(str, argv)], str(path), settings, str(self.folder))
        if self._closed:
            raise KeyboardInterrupt  # in the thread of a kind that is being stopped
        command = Command(self._context.Process(target=begin, args=arguments), path)
        self._commands.append(command)
        return command

    def tell(self, refused: Command, project: Project) -> None:
        """Where `litlab resume` says that the store does not know of the run's end, do what it says."""
        if "To send it: litlab sync" in refused.text:
            self.litlab("sync", uri=project.uri).end()

    def side_by_side(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """Do them all, one on each core at a time; their results, in order."""
        with ThreadPoolExecutor(self.cores) as pool:
            futures = [pool.submit(work) for work in works]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise

    def close(self) -> None:
        """End every command that is under way, and what it has started; no other can be started."""
        self._closed = True
        for command in self._commands:
            if command.process.exitcode is None:
                for pid in family(command.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def counted(numbers: Mapping[str, int]) -> str:
    """3 before the run was there, 20 in the training."""
    return ", ".join(f"{number} {what}" for what, number in numbers.items() if number) or "none"


@contextlib.contextmanager
def noted(lost: list[str], of: str) -> Iterator[None]:
    """What a check cannot even read is lost, too."""
    try:
        yield
    except Exception as error:
        lost.append(f"{of}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
