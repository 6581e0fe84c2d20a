"""The cells of litlab."""

import json

import yaml
from cells import DDP, WATCH, Cell, Cells, Project, compare_weights
from processes import LITLAB, CommandError, Outcome
from watch import WEIGHTS


class LitlabCells(Cells):
    """The commands of litlab."""

    program = "litlab"

    def _run(self, project: Project, *arguments: str, kill: bool = False, fresh: bool = False) -> Outcome:
        variables = project.variables(self.case, kill=kill)
        return self.commands.run(LITLAB, arguments, project.folder, variables, fresh=fresh)

    def train(self) -> Project:
        project = self.project("fit")
        self._run(project, "fit", str(self.case.path), *WATCH).check()
        runs = project.finished_runs()
        if len(runs) != 1 or not runs[0].data.metrics:
            raise CommandError(f"{len(runs)} finished runs with metrics, not 1")
        return project

    def fit(self) -> Cell:
        return Cell((self.trained().folder / WEIGHTS).is_file())

    def test(self) -> Cell:
        return self._evaluate("test")

    def validate(self) -> Cell:
        return self._evaluate("validate")

    def _evaluate(self, verb: str) -> Cell:
        project = self.trained()
        self._run(project, verb, _run_id(project)).check()
        return Cell(True)

    def resume(self) -> Cell:
        return self._kill_and_resume("resume")

    def within(self) -> Cell:
        return self._kill_and_resume("within", "--checkpoint_every=1")

    def _kill_and_resume(self, name: str, *arguments: str) -> Cell:
        reference, project = self.trained(), self.project(name)
        killed = self._run(project, "fit", str(self.case.path), *WATCH, *arguments, kill=True)
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
        project = self.project("seeds")
        self._run(project, "fit", str(self.case.path), "--seeds", "2").check()
        return _count(project, 3)  # with their parent

    def sweep(self) -> Cell:
        project, (key, values) = self.project("sweep"), self.case.key
        space = {
            "experiment": str(self.case.path),
            "metric": self.case.metric,
            "direction": f"{self.case.mode}imize",
            "sampler": "grid",
            "confirm": 1,
            "space": {key: values},
        }
        (project.folder / "space.yaml").write_text(yaml.safe_dump(space))
        self._run(project, "sweep", "-c", "space.yaml").check()
        return _count(project, 4)  # a summary, two trials, the best on a fresh seed

    def compare(self) -> Cell:
        project = self.trained()
        run_id = _run_id(project)
        metric = ["--metric", self.case.compared or f"selected/{self.case.metric}"]
        output = self._run(project, "compare", run_id, *metric, "--format", "json").check().output
        rows = json.loads(output[output.index("[") :])
        return Cell(len(rows) == 1 and rows[0]["runs"] == [run_id])

    def ddp(self) -> Cell:
        project = self.project("ddp")
        strategy = f"--trainer.strategy={self.case.strategy}"
        arguments = [str(self.case.path), *WATCH, *DDP, strategy, *self.case.ddp]
        self._run(project, "fit", *arguments, fresh=True).check()
        project.check_processes()
        return _count(project, 1)


def _run_id(project: Project) -> str:
    (run,) = project.finished_runs()
    return str(run.info.run_id)


def _count(project: Project, at_least: int) -> Cell:
    found = len(project.finished_runs())
    if found < at_least:
        raise CommandError(f"{found} finished runs, not {at_least}")
    return Cell(True)
