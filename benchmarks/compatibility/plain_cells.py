"""The cells of LightningCLI with MLFlowLogger."""

from pathlib import Path

from cells import DDP, NONE, WATCH, Cell, Cells, Project, compare_weights
from processes import PLAIN, CommandError, Outcome

RANDOM = "the order of the examples and the random numbers are not those of an uninterrupted training"
EVERY_STEP = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"]


class PlainCells(Cells):
    """The commands of LightningCLI."""

    program = "plain"

    @property
    def _watch(self) -> list[str]:
        """The callback, of the same package as the trainer."""
        return WATCH if self.case.package == "lightning.pytorch" else ["--trainer.callbacks+=watch_pl.Watch"]

    def _run(self, project: Project, verb: str, *arguments: str, kill: bool = False, fresh: bool = False) -> Outcome:
        case = self.case
        logger = {"": "MLFlowLogger", ".experiment_name": case.name, ".tracking_uri": project.uri}
        settings = [f"--trainer.logger{key}={value}" for key, value in logger.items()]
        command = [case.package, verb, "-c", str(case.path), *settings, *arguments]
        return self.commands.run(PLAIN, command, project.folder, project.variables(case, kill=kill), fresh=fresh)

    def _load(self, project: Project, verb: str, *arguments: str) -> Cell:
        """Run a command with the last checkpoint."""
        self._run(project, verb, f"--ckpt_path={_last_checkpoint(project)}", *arguments).check()
        return Cell(True)

    def train(self) -> Project:
        project = self.project("fit")
        self._run(project, "fit", *self._watch).check()
        return project

    def fit(self) -> Cell:
        return Cell(len(self.trained().finished_runs()) == 1)

    def test(self) -> Cell:
        return self._load(self.trained(), "test")

    def validate(self) -> Cell:
        return self._load(self.trained(), "validate")

    def resume(self) -> Cell:
        return self._kill_and_resume("resume")

    def within(self) -> Cell:
        return self._kill_and_resume("within", *EVERY_STEP)

    def _kill_and_resume(self, name: str, *arguments: str) -> Cell:
        reference, project = self.trained(), self.project(name)
        killed = self._run(project, "fit", *arguments, *self._watch, kill=True)
        if killed.code != -9:
            raise CommandError(f"not killed: {killed.check().output.splitlines()[-1:]}")
        self._load(project, "fit", *arguments, *self._watch)
        compared = compare_weights(project.folder, reference.folder)
        return Cell(compared.ok, compared.word, "" if compared.ok else RANDOM)

    def ddp(self) -> Cell:
        project = self.project("ddp")
        arguments = [*self._watch, *DDP, f"--trainer.strategy={self.case.strategy}", *self.case.ddp]
        self._run(project, "fit", *arguments, fresh=True).check()
        project.check_processes()
        return Cell(len(project.finished_runs()) == 1)

    def seeds(self) -> Cell:
        return Cell(False, NONE)

    sweep = compare = seeds


def _last_checkpoint(project: Project) -> Path:
    """Return the checkpoint that was saved last."""
    found = sorted(project.folder.glob("**/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise CommandError("no checkpoint was saved")
    return found[-1]
