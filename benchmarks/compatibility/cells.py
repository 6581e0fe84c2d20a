"""Base class of the cells of both programs: a separate folder with an MLflow database, and the final weights."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cases import Case
from mlflow import MlflowClient
from processes import CommandError, Commands
from watch import WEIGHTS

COLUMNS = {
    "fit": "fit",
    "test": "test",
    "validate": "validate",
    "resume": "kill -9, resume",
    "within": "the same, checkpoints within epochs",
    "seeds": "seeds",
    "sweep": "sweep",
    "compare": "compare",
    "ddp": "2 processes",
}
NONE = "\N{EN DASH}"  # there is no such command
NO, OTHER_WEIGHTS = "no", "other weights"
WATCH = ["--trainer.callbacks+=watch.Watch"]
DDP = ["--trainer.devices=2", "--trainer.accelerator=cpu"]


@dataclass(frozen=True)
class Cell:
    """A cell of the table: whether the command did what it should, a word if it did not, and why."""

    ok: bool
    word: str = ""
    note: str = ""


class Project:
    """A folder with a tracking database, for some commands of one program on one module.

    Args:
        folder: The folder, which must not exist.
        database: An empty database of MLflow, to be copied.
    """

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copy(database, folder / "mlflow.db")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"

    def variables(self, case: Case, *, kill: bool = False) -> dict[str, str]:
        """Return the environment of a command."""
        variables = {"COMPATIBILITY_FOLDER": str(self.folder), "MLFLOW_TRACKING_URI": self.uri}
        return variables | ({"COMPATIBILITY_KILL": "{} {}".format(*case.kill)} if kill else {})

    def finished_runs(self) -> list[Any]:
        """Return the finished runs of the project, the oldest first."""
        client = MlflowClient(self.uri)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        order = ["attributes.start_time ASC"]
        return list(client.search_runs(ids, "attributes.status = 'FINISHED'", order_by=order))

    def check_processes(self) -> None:
        """Raise CommandError unless two processes have trained together."""
        ranks = sorted(path.name for path in self.folder.glob("rank-*"))
        if ranks != ["rank-0-of-2", "rank-1-of-2"]:
            raise CommandError(f"trained in the processes {ranks}")


class Cells:
    """Runs the commands of a program on a module. A subclass has a method for each column.

    Args:
        case: The module.
        folder: Scratch folder.
        database: An empty database of MLflow.
        commands: Starts the commands.
    """

    program: str

    def __init__(self, case: Case, folder: Path, database: Path, commands: Commands) -> None:
        self.case, self._database, self.commands = case, database, commands
        self._folder = folder / case.name / self.program
        self._trained: Project | CommandError | None = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def project(self, name: str) -> Project:
        """Create a project."""
        return Project(self._folder / name, self._database)

    def trained(self) -> Project:
        """Return a project with a finished run. It is trained once, even if that fails."""
        if self._trained is None:
            try:
                self._trained = self.train()
            except CommandError as error:
                self._trained = error
        if isinstance(self._trained, CommandError):
            raise self._trained
        return self._trained

    def train(self) -> Project:
        """Train in a project."""
        raise NotImplementedError

    def measure(self, column: str) -> Cell:
        """Return a cell, with the reason if it is not ok; an exception makes a cell that is not."""
        try:
            cell: Cell = getattr(self, column)()
        except CommandError as error:
            cell = Cell(False, NO, str(error))
        except Exception as error:
            if self.commands.closed:
                raise KeyboardInterrupt from error  # ends the thread of this module
            cell = Cell(False, NO, f"{type(error).__name__}: {error}")
        reason = self.case.reasons.get(column)
        return Cell(False, cell.word, reason) if reason and not cell.ok else cell


def compare_weights(one: Path, other: Path) -> Cell:
    """Compare the weights at the end of two trainings, bit by bit."""
    for folder in (one, other):
        if not (folder / WEIGHTS).is_file():
            raise CommandError("the training did not end")
    weights, expected = (torch.load(folder / WEIGHTS, weights_only=True) for folder in (one, other))
    equal = weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in expected)
    return Cell(True) if equal else Cell(False, OTHER_WEIGHTS)
