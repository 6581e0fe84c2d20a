"""The cells of litlab."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import yaml
from cases import Case
from cells import DDP, WATCH, Cell, Project, compare_weights
from commands import LITLAB, CommandError, Commands, Outcome


class LitlabCells:
    """Runs the commands of litlab on a module.

    Args:
        case: The module.
        folder: Scratch folder.
        database: An empty database of MLflow.
        commands: Starts the commands.
    """

    def __init__(self, case: Case, folder: Path, database: Path, commands: Commands) -> None:
        self._case, self._database, self._commands = case, database, commands
        self._folder = folder / case.name / "litlab"

    def _project(self, name: str) -> Project:
        return Project(self._folder / name, self._database, self._commands)

    def _run(self, project: Project, *arguments: str, kill: bool = False, fresh: bool = False) -> Outcome:
        variables = project.variables(self._case, kill=kill)
        return self._commands.run(LITLAB, arguments, project.folder, variables, fresh=fresh)

    @cached_property
    def _trained(self) -> tuple[Project, str]:
        """A project with a finished run, and the run's id."""
        project = self._project("fit")
        self._run(project, "fit", str(self._case.path), *WATCH).check()
        runs = project.finished_runs()
        if len(runs) != 1 or not runs[0].data.metrics:
            raise CommandError(f"{len(runs)} finished runs with metrics, not 1")
        return project, runs[0].info.run_id

    def fit(self) -> Cell:
        project, _ = self._trained
        return Cell((project.folder / "weights.pt").is_file())

    def test(self) -> Cell:
        return self._evaluate("test")

    def validate(self) -> Cell:
        return self._evaluate("validate")

    def _evaluate(self, verb: str) -> Cell:
        project, run_id = self._trained
        self._run(project, verb, run_id).check()
        return Cell(True)

    def resume(self) -> Cell:
        return self._kill_and_resume("resume")

    def within(self) -> Cell:
        return self._kill_and_resume("within", "--checkpoint_every=1")

    def _kill_and_resume(self, name: str, *arguments: str) -> Cell:
        reference, _ = self._trained
        project = self._project(name)
        killed = self._run(project, "fit", str(self._case.path), *WATCH, *arguments, kill=True)
        if killed.code != -9:
            raise CommandError(f"not killed: {killed.check().output.splitlines()[-1:]}")
        folders = list(project.folder.glob("mlartifacts/*/*"))
        if len(folders) != 1:
            raise CommandError(f"{len(folders)} runs to resume, not 1")
        self._run(project, "resume", folders[0].name).check()
        if [run.info.run_id for run in project.finished_runs()] != [folders[0].name]:
            raise CommandError("the run is not finished")
        return compare_weights(project.folder, reference.folder)

    def seeds(self) -> Cell:
        project = self._project("seeds")
        self._run(project, "fit", str(self._case.path), "--seeds", "2").check()
        return _count(project, 3)  # with their parent

    def sweep(self) -> Cell:
        project, (key, values) = self._project("sweep"), self._case.key
        space = {
            "experiment": str(self._case.path),
            "metric": self._case.metric,
            "direction": f"{self._case.mode}imize",
            "sampler": "grid",
            "confirm": 1,
            "space": {key: values},
        }
        (project.folder / "space.yaml").write_text(yaml.safe_dump(space))
        self._run(project, "sweep", "-c", "space.yaml").check()
        return _count(project, 5)  # a summary, two trials, the best and the unchanged configuration

    def compare(self) -> Cell:
        project, run_id = self._trained
        metric = ["--metric", f"selected/{self._case.metric}"]
        output = self._run(project, "compare", run_id, *metric, "--format", "json").check().output
        rows = json.loads(output[output.index("[") :])
        return Cell(len(rows) == 1 and rows[0]["runs"] == [run_id])

    def ddp(self) -> Cell:
        project = self._project("ddp")
        strategy = f"--trainer.strategy={self._case.strategy}"
        arguments = [str(self._case.path), *WATCH, *DDP, strategy, *self._case.ddp]
        self._run(project, "fit", *arguments, fresh=True).check()
        project.check_processes()
        return _count(project, 1)

    def cell(self, column: str) -> Callable[[], Cell]:
        function: Callable[[], Cell] = getattr(self, column)
        return function


def _count(project: Project, expected: int) -> Cell:
    found = len(project.finished_runs())
    if found != expected:
        raise CommandError(f"{found} finished runs, not {expected}")
    return Cell(True)
