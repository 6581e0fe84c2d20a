"""The cells of LightningCLI with MLFlowLogger."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from cases import Case
from cells import DDP, WATCH, NONE, Cell, Project, compare_weights
from commands import PLAIN, CommandError, Commands, Outcome

NO_COMMAND = ("seeds", "sweep", "compare")
EVERY_STEP = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"]


class PlainCells:
    """Runs the commands of LightningCLI on a module. Arguments as those of LitlabCells."""

    def __init__(self, case: Case, folder: Path, database: Path, commands: Commands) -> None:
        self._case, self._database, self._commands = case, database, commands
        self._folder = folder / case.name / "plain"

    def _project(self, name: str) -> Project:
        return Project(self._folder / name, self._database, self._commands)

    def _run(self, project: Project, verb: str, *arguments: str, kill: bool = False, fresh: bool = False) -> Outcome:
        case = self._case
        logger = {"": "MLFlowLogger", ".experiment_name": case.name, ".tracking_uri": project.uri}
        settings = [f"--trainer.logger{key}={value}" for key, value in logger.items()]
        command = [case.package, verb, "-c", str(case.path), *settings, *arguments]
        return self._commands.run(PLAIN, command, project.folder, project.variables(case, kill=kill), fresh=fresh)

    def _load(self, project: Project, verb: str, checkpoint: Path, *arguments: str) -> Cell:
        """Run a command with a checkpoint, in full if it cannot be loaded otherwise."""
        load = [f"--ckpt_path={checkpoint}", *arguments]
        outcome = self._run(project, verb, *load)
        if outcome.code and "weights_only" in outcome.output:
            self._run(project, verb, *load, "--weights_only=false").check()
            return Cell(True, note="with `--weights_only=false`")
        outcome.check()
        return Cell(True)

    @cached_property
    def _trained(self) -> Project:
        project = self._project("fit")
        self._run(project, "fit", *WATCH).check()
        return project

    def fit(self) -> Cell:
        return Cell(len(self._trained.finished_runs()) == 1)

    def test(self) -> Cell:
        return self._load(self._trained, "test", _last_checkpoint(self._trained))

    def validate(self) -> Cell:
        return self._load(self._trained, "validate", _last_checkpoint(self._trained))

    def resume(self) -> Cell:
        return self._kill_and_resume("resume")

    def within(self) -> Cell:
        return self._kill_and_resume("within", *EVERY_STEP)

    def _kill_and_resume(self, name: str, *arguments: str) -> Cell:
        reference, project = self._trained, self._project(name)
        killed = self._run(project, "fit", *arguments, *WATCH, kill=True)
        if killed.code != -9:
            raise CommandError(f"not killed: {killed.check().output.splitlines()[-1:]}")
        loaded = self._load(project, "fit", _last_checkpoint(project), *arguments, *WATCH)
        compared = compare_weights(project.folder, reference.folder)
        return Cell(compared.ok, compared.word, loaded.note)

    def ddp(self) -> Cell:
        project = self._project("ddp")
        arguments = [*WATCH, *DDP, f"--trainer.strategy={self._case.strategy}", *self._case.ddp]
        self._run(project, "fit", *arguments, fresh=True).check()
        project.check_processes()
        return Cell(len(project.finished_runs()) == 1)

    def cell(self, column: str) -> Callable[[], Cell]:
        if column in NO_COMMAND:
            return lambda: Cell(False, NONE)
        function: Callable[[], Cell] = getattr(self, column)
        return function


def _last_checkpoint(project: Project) -> Path:
    """Return the checkpoint that was saved last."""
    found = sorted(project.folder.glob("**/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise CommandError("no checkpoint was saved")
    return found[-1]
