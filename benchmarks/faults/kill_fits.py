"""`kill -9` at random moments of a fit and of its resumptions, until it ends; then it is compared with a whole one."""

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import runs
import torch
from bench import Bench, Project, Row, Tally, counted, noted
from commands import Command, until

from pipelines.tracking.uri import local_path

ONE_CYCLE = ["--model.lr_scheduler", "modules.schedules.OneCycle"]
PLATEAU = [
    "--model.lr_scheduler",
    "lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.lr_scheduler.monitor",
    "val/loss",
]
AUGMENTED = ["--data.crop_padding", "2", "--data.flip", "true", "--model.batch_norm", "true"]
CASES = {
    "`digits-mlp`: dropout, OneCycle, 12 epochs": [
        *["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "8", "--trainer.max_epochs", "12"],
        *ONE_CYCLE,
    ],
    "`digits-convnet`: crop, flip, batch norm, dropout, 4 epochs": [
        *["digits-convnet", "--model.dropout", "0.3", "--trainer.max_epochs", "4"],
        *AUGMENTED,
    ],
    "`circles`: a schedule that watches the loss, decision regions, 30 epochs": [
        *["circles", "--trainer.max_epochs", "30"],
        *PLATEAU,
    ],
}
TOTAL, KILLS_EACH = 105, 7
NOTHING = "ended before training started"  # what `litlab resume` prints where no configuration was saved
MOMENTS = ("before the run was there", "before the first checkpoint", "in the training", "after it")


@dataclass
class Whole:
    """A fit that nobody stopped."""

    project: Project
    run_id: str
    seconds: float


@dataclass
class Fits(Tally):
    """What has happened to the fits of one case."""

    fits: int = 0
    anew: int = 0


def total(quick: bool) -> int:
    return 4 if quick else TOTAL


def table(bench: Bench) -> list[Row]:
    """A row for each case."""
    cases = list(CASES.items())[: 2 if bench.quick else None]
    wanted = total(bench.quick) // len(cases)
    rows = []
    for number, (name, case) in enumerate(cases):
        reference = whole(bench, case, f"whole-{number}")
        tally = Fits(wanted)
        bench.side_by_side([partial(_fits, bench, case, number, lane, reference, tally) for lane in range(bench.cores)])
        found = f"killed {counted({moment: tally.killed[moment] for moment in MOMENTS})}"
        found += f"; {tally.anew} had nothing to go on with and began anew" if tally.anew else ""
        rows.append(Row(f"kill -9 of a fit, {name}", f"{tally.kills} kills of {tally.fits} fits", found, tally.lost))
    return rows


def whole(bench: Bench, case: list[str], name: str) -> Whole:
    """Train without a fault.

    Raises:
        RuntimeError: It failed, so that nothing can be compared with it.
    """
    project = bench.project(name)
    command = bench.litlab("fit", *case, uri=project.uri)
    if command.end():
        raise RuntimeError(f"litlab fit {' '.join(case)} failed: {command.last}")
    return Whole(project, runs.every(project.uri)[0].info.run_id, command.seconds)


def _fits(bench: Bench, case: list[str], number: int, lane: int, reference: Whole, tally: Fits) -> None:
    """One fit after the other, until there are kills enough."""
    turn = 0
    while tally.kills < tally.wanted:
        project = bench.project(f"fit-{number}-{lane}-{turn}")
        kills, losses = tally.kills, len(tally.lost)
        _one(bench, case, project, reference, tally)
        if len(tally.lost) > losses and tally.kills == kills:
            return  # nothing works here
        turn += 1


def _one(bench: Bench, case: list[str], project: Project, reference: Whole, tally: Fits) -> None:
    """A fit that is killed some times, then left to end, then compared."""
    chance, lost, run_id, kills = bench.random(project.folder.name), [], "", 0
    while True:
        argv = ["resume", run_id] if run_id else ["fit", *case]
        command = bench.litlab(*argv, uri=project.uri, log=f"{project.folder.name}.txt")
        shoot = kills < KILLS_EACH and tally.kills < tally.wanted
        if shoot and _aim(command, chance, reference, epochs_of(case)) and command.kill():
            kills += 1
            with tally.lock:
                tally.killed[moment(project, case)] += 1
            bench.step()
        elif command.end() == 0:
            break
        elif "is FINISHED" in command.text:
            bench.tell(command, project)
            break
        elif NOTHING in command.text:
            tally.anew += 1
        else:
            lost.append(f"exit code {command.end()}: {command.last}")
            break
        run_id = "" if NOTHING in command.text else next((run.info.run_id for run in runs.every(project.uri)[-1:]), "")
    with noted(lost, project.folder.name):
        lost += _checked(project, reference)
    with tally.lock:
        tally.fits += 1
        tally.lost += [f"{project.folder.name}: {said}" for said in lost]


def _aim(command: Command, chance: random.Random, reference: Whole, epochs: int) -> bool:
    """Wait for a moment, one in three of the whole time, else some epochs later; whether there is anything to kill."""
    if chance.random() < 1 / 3:
        return command.wait(chance.uniform(0, reference.seconds)) is None
    later = chance.randint(1, max(2, epochs // 4))
    until(lambda: command.text.count("\nepoch ") >= later or command.wait(0) is not None)
    return command.wait(chance.uniform(0, reference.seconds / epochs)) is None


def epochs_of(case: list[str]) -> int:
    return int(case[case.index("--trainer.max_epochs") + 1])


def moment(project: Project, case: list[str]) -> str:
    """When a fit was killed, by what it has left."""
    found = runs.every(project.uri)[-1:]
    if not found:
        return MOMENTS[0]
    last = runs.folder_of(project.uri, found[0]) / "checkpoints/last.ckpt"
    if not last.is_file():
        return MOMENTS[1]
    ended = torch.load(last, weights_only=True)["epoch"] + 1 >= epochs_of(case)
    return MOMENTS[3] if ended else MOMENTS[2]


def _checked(project: Project, reference: Whole) -> list[str]:
    """What is not as if nothing had been."""
    found = runs.every(project.uri)
    begun = [run for run in found if run.data.metrics]
    said = [] if len(begun) == 1 else [f"{len(begun)} runs with metrics"]
    said += [f"run {run.info.run_id} has files" for run in found if not run.data.metrics and _config(run)]
    said += runs.sound(project)
    if begun:
        waits = project.folder / "unsent" / begun[-1].info.run_id / "run.json"
        said += ["something waits to be sent"] if waits.exists() else []
        said += runs.differences(project.uri, begun[-1].info.run_id, reference.project.uri, reference.run_id)
    return said


def _config(run: object) -> bool:
    folder = local_path(run.info.artifact_uri)  # type: ignore[attr-defined]
    return folder is not None and (Path(folder) / "config.yaml").exists()
