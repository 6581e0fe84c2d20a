"""`kill -9` of a fit, its resumptions or its writer at random moments; then compare with an undisturbed fit."""

import os
import random
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import runs
import torch
from bench import Bench, Project, Row, Tally, format_counts, record_errors
from commands import Command, process_tree, until

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
    "`circles`: ReduceLROnPlateau, decision regions, 30 epochs": [
        *["circles", "--trainer.max_epochs", "30"],
        *PLATEAU,
    ],
}
TOTAL, KILLS_EACH, WRITERS = 105, 7, 20  # kills of fits, of one fit at most, and fits whose writer is killed
NOT_STARTED = "ended before training started"  # what `litlab resume` prints where no configuration was saved
MOMENTS = ("before the run existed", "before the first checkpoint", "during training", "after training")


@dataclass
class Reference:
    """An undisturbed fit, which the other fits are compared with."""

    project: Project
    run_id: str
    seconds: float


@dataclass
class Fits(Tally):
    """Number of fits of one case, and how many had to be restarted."""

    fits: int = 0
    restarts: int = 0


def total(quick: bool) -> int:
    return (4 + 2) if quick else TOTAL + WRITERS


def table(bench: Bench) -> list[Row]:
    """Return a row for each case."""
    cases = list(CASES.items())[: 2 if bench.quick else None]
    target = (4 if bench.quick else TOTAL) // len(cases)
    rows, references = [], []
    for number, (name, case) in enumerate(cases):
        reference = train_reference(bench, case, f"reference-{number}")
        references.append(reference)
        tally = Fits(target)
        bench.run_parallel([partial(_fits, bench, case, number, lane, reference, tally) for lane in range(bench.cores)])
        outcome = f"killed: {format_counts({moment: tally.killed[moment] for moment in MOMENTS})}"
        outcome += f"; {tally.restarts} had nothing to resume and restarted" if tally.restarts else ""
        rows.append(Row(f"kill -9 of a fit, {name}", f"{tally.kills} kills in {tally.fits} fits", outcome, tally.lost))
    return [*rows, _kill_writers(bench, *cases[0], references[0])]


def _kill_writers(bench: Bench, name: str, case: list[str], reference: Reference) -> Row:
    """Kill the process that sends a fit's data, up to twice in a fit."""

    def kill_once(number: int) -> tuple[int, list[str]]:
        project, kills, lost = bench.project(f"writer-{number}"), 0, list[str]()
        command, chance = bench.litlab("fit", *case, uri=project.uri, log=f"writer-{number}.txt"), bench.random(number)
        for _ in range(2):
            if command.wait(chance.uniform(0, reference.seconds / 2)) is None:
                for pid in process_tree(command.pid)[1:]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
        if code := command.exit_code():
            lost.append(f"exit code {code}: {command.last_line}")
        with record_errors(lost, project.folder.name):
            lost += _check(project, reference)
        bench.step()
        return kills, [f"{project.folder.name}: {message}" for message in lost]

    done = bench.run_parallel([partial(kill_once, number) for number in range(2 if bench.quick else WRITERS)])
    times = f"{sum(kills for kills, _ in done)} kills in {len(done)} fits"
    lost = [message for _, messages in done for message in messages]
    return Row(f"kill -9 of the writer of a fit, {name}", times, "the fit ends as without a kill", lost)


def train_reference(bench: Bench, case: list[str], name: str) -> Reference:
    """Train without faults.

    Raises:
        RuntimeError: The fit failed, so nothing can be compared with it.
    """
    project = bench.project(name)
    command = bench.litlab("fit", *case, uri=project.uri)
    if command.exit_code():
        raise RuntimeError(f"litlab fit {' '.join(case)} failed: {command.last_line}")
    return Reference(project, runs.all_runs(project.uri)[0].info.run_id, command.seconds)


def _fits(bench: Bench, case: list[str], number: int, lane: int, reference: Reference, tally: Fits) -> None:
    """Run one fit after another until there are enough kills."""
    turn = 0
    while tally.kills < tally.target:
        project = bench.project(f"fit-{number}-{lane}-{turn}")
        kills, losses = tally.kills, len(tally.lost)
        _one(bench, case, project, reference, tally)
        if len(tally.lost) > losses and tally.kills == kills:
            return  # fails without any kill
        turn += 1


def _one(bench: Bench, case: list[str], project: Project, reference: Reference, tally: Fits) -> None:
    """Kill a fit several times, let it end, and compare it with the reference."""
    chance, lost, run_id, kills = bench.random(project.folder.name), [], "", 0
    while True:
        argv = ["resume", run_id] if run_id else ["fit", *case]
        command = bench.litlab(*argv, uri=project.uri, log=f"{project.folder.name}.txt")
        can_kill = kills < KILLS_EACH and tally.kills < tally.target
        if can_kill and _wait_for_moment(command, chance, reference, epochs_of(case)) and command.kill():
            kills += 1
            with tally.lock:
                tally.killed[moment(project, case)] += 1
            bench.step()
        elif command.exit_code() == 0:
            break
        elif "is FINISHED" in command.output:
            bench.sync_if_requested(command, project)
            break
        elif NOT_STARTED in command.output:
            tally.restarts += 1
        else:
            lost.append(f"exit code {command.exit_code()}: {command.last_line}")
            break
        last_run = [] if NOT_STARTED in command.output else runs.all_runs(project.uri)[-1:]
        run_id = last_run[0].info.run_id if last_run else ""
    with record_errors(lost, project.folder.name):
        lost += _check(project, reference)
    with tally.lock:
        tally.fits += 1
        tally.lost += [f"{project.folder.name}: {message}" for message in lost]


def _wait_for_moment(command: Command, chance: random.Random, reference: Reference, epochs: int) -> bool:
    """Wait for a random part of the total time (1/3 of all calls) or for some epochs; return whether it still runs."""
    if chance.random() < 1 / 3:
        return command.wait(chance.uniform(0, reference.seconds)) is None
    more_epochs = chance.randint(1, max(2, epochs // 4))
    until(lambda: command.output.count("\nepoch ") >= more_epochs or command.wait(0) is not None)
    return command.wait(chance.uniform(0, reference.seconds / epochs)) is None


def epochs_of(case: list[str]) -> int:
    return int(case[case.index("--trainer.max_epochs") + 1])


def moment(project: Project, case: list[str]) -> str:
    """Return when a fit was killed, judged by the files that it left."""
    last_run = runs.all_runs(project.uri)[-1:]
    if not last_run:
        return MOMENTS[0]
    last = runs.folder_of(project.uri, last_run[0]) / "checkpoints/last.ckpt"
    if not last.is_file():
        return MOMENTS[1]
    finished = torch.load(last, weights_only=True)["epoch"] + 1 >= epochs_of(case)
    return MOMENTS[3] if finished else MOMENTS[2]


def _check(project: Project, reference: Reference) -> list[str]:
    """Return what differs from an undisturbed fit."""
    all_runs = runs.all_runs(project.uri)
    trained = [run for run in all_runs if run.data.metrics]
    lost = [] if len(trained) == 1 else [f"{len(trained)} runs with metrics"]
    lost += [f"run {run.info.run_id} has files" for run in all_runs if not run.data.metrics and _has_config(run)]
    lost += runs.database_errors(project)
    if trained:
        pending = project.folder / "unsent" / trained[-1].info.run_id / "run.json"
        lost += ["data are pending"] if pending.exists() else []
        lost += runs.differences(project.uri, trained[-1].info.run_id, reference.project.uri, reference.run_id)
    return lost


def _has_config(run: object) -> bool:
    folder = local_path(run.info.artifact_uri)  # type: ignore[attr-defined]
    return folder is not None and (Path(folder) / "config.yaml").exists()
