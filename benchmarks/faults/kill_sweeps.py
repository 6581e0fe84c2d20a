"""`kill -9` at random moments of a sweep: trainings, their server, the controller, or all; then all is counted."""

import contextlib
import os
import random
import re
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import runs
import yaml
from bench import Bench, Project, Row, Tally, counted, noted
from commands import Command, family, is_alive, until

from sweeps.search.trials import params_key

TOTAL, TRIALS, EPOCHS, WORKERS = 105, 50, 2, 2
METRIC = "val/acc"
SPACE = {"model.dropout": {"low": 0.0, "high": 0.6}, "model.optimizer.lr": {"low": 0.0005, "high": 0.02, "log": True}}
VICTIMS = {"trainings": 24, "servers of the trainings": 1, "controllers": 3, "process groups": 2, "whole families": 2}
SAID = re.compile(rf"^trial +(\d+)  (complete|fail)\b +(?:{METRIC} ([\d.]+))?", re.MULTILINE)
Acknowledged = dict[int, tuple[str, str]]  # by number: state and value, as the screen had them


@dataclass
class Studies(Tally):
    """What has happened to all studies."""

    studies: int = 0
    trials: int = 0
    starts: int = 0


def total(quick: bool) -> int:
    return 3 if quick else TOTAL


def table(bench: Bench) -> list[Row]:
    """One row for all studies."""
    tally = Studies(total(bench.quick))
    lanes = (
        1 if bench.quick else min(2, bench.cores)
    )  # while one controller starts, which takes longest, another trains
    bench.side_by_side([partial(_studies, bench, lane, tally) for lane in range(lanes)])
    trials = "6" if bench.quick else str(TRIALS)
    what = f"kill -9 of processes of `litlab sweep --workers {WORKERS}` (`digits-mlp`, {trials} trials each)"
    found = f"killed {counted(tally.killed)}; {tally.starts} starts until all studies were complete; "
    found += f"{tally.trials} trials, each counted once, each complete one with its run"
    return [Row(what, f"{tally.kills} kills in {tally.studies} studies", found, tally.lost)]


def _studies(bench: Bench, lane: int, tally: Studies) -> None:
    turn = 0
    while tally.kills < tally.wanted:
        project, kills = bench.project(f"sweep-{lane}-{turn}"), tally.kills
        lost: list[str] = []
        with noted(lost, "the check"):
            lost += _one(bench, project, tally)
        with tally.lock:
            tally.studies += 1
            tally.lost += [f"{project.folder.name}: {said}" for said in lost]
        if lost and tally.kills == kills:
            return  # nothing works here
        turn += 1


def _one(bench: Bench, project: Project, tally: Studies) -> list[str]:
    """One study, under fire until it is complete or there are kills enough; returns what it has lost."""
    trials = 6 if bench.quick else TRIALS
    space = {"experiment": "digits-mlp", "sampler": "random", "pruner": "none", "trials": trials, "confirm": 1}
    path = project.folder / "study.yaml"
    path.write_text(yaml.safe_dump({**space, "set": {"trainer.max_epochs": EPOCHS}, "space": SPACE}))
    chance = bench.random(project.folder.name)
    acknowledged: Acknowledged = {}
    while True:
        log = f"{project.folder.name}.txt"
        command = bench.litlab("sweep", "-c", path, "--workers", str(WORKERS), uri=project.uri, log=log)
        tally.starts += 1
        fired = _under_fire(bench, command, chance, tally)
        code = command.end()
        said = {int(number): (state, value) for number, state, value in SAID.findall(command.text)}
        if twice := [number for number in said if acknowledged.get(number, said[number]) != said[number]]:
            return [f"trial {twice[0]} was told twice"]
        acknowledged |= said
        if not fired or code == 0:
            break
    tally.trials += trials
    wrong = [] if code == 0 else [f"exit code {code}: {command.last}"]
    return wrong + _checked(project, trials, acknowledged, command.text)


def _under_fire(bench: Bench, command: Command, chance: random.Random, tally: Studies) -> int:
    """Kill somebody now and then, until the controller has ended, and all that it had started; how often."""
    known: set[int] = set()
    fired, pace = 0, chance.choice((0.5, 1.0, 2.0))
    if chance.random() < 0.8:  # starting takes longer than all trials: most shots are for later
        until(lambda: SAID.search(command.text) or command.wait(0) is not None)
    while command.wait(chance.uniform(0.05, 2 * pace)) is None and tally.kills < tally.wanted:
        known |= set(family(command.pid))
        whom = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        pids = _victims(whom, command.pid, chance)
        if whom == "trainings" and not pids and chance.random() < 0.2:  # while it starts and ends, too
            whom, pids = "controllers", [command.pid]
        killed = [_kill(pid) for pid in pids]
        if any(killed):
            fired += 1
            with tally.lock:
                tally.killed[whom] += 1
            bench.step()
    if command.wait() is None:
        command.kill()
        tally.lost.append("a sweep did not end")
    if not until(lambda: not any(map(is_alive, known)), 60):
        tally.lost.append(f"{sum(map(is_alive, known))} processes are left over")
    return fired


def _victims(whom: str, controller: int, chance: random.Random) -> list[int]:
    """Which processes that are."""
    everybody = family(controller)
    trainings = [pid for pid in everybody[1:] if _session(pid) == pid]
    if whom == "trainings":
        return [chance.choice(trainings)] if trainings else []
    if whom == "controllers":
        return [controller]
    if whom == "process groups":
        return [pid for pid in everybody if _session(pid) == controller]
    if whom == "whole families":
        return everybody
    return sorted({_parent(pid) for pid in trainings} - {controller, 0})


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        alive = is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        return alive
    return False


def _parent(pid: int) -> int:
    return _stat(pid, 1)


def _session(pid: int) -> int:
    return _stat(pid, 3)


def _stat(pid: int, field: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[field])
    except OSError:
        return 0


def _checked(project: Project, trials: int, acknowledged: Acknowledged, said: str) -> list[str]:
    """What is lost, double or wrong in a study that is complete."""
    import optuna

    (name,) = optuna.get_all_study_names(f"sqlite:///{project.folder / 'optuna.db'}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{project.folder / 'optuna.db'}")
    own = [trial for trial in study.trials if "interrupted" not in trial.user_attrs]
    found = runs.every(project.uri)
    wrong = runs.sound(project)
    wrong += [] if len(own) == trials else [f"{len(own)} trials, not {trials}"]
    wrong += [f"trial {trial.number} is {trial.state.name}" for trial in study.trials if not trial.state.is_finished()]
    wrong += [f"run {run.info.run_name} is {run.info.status}" for run in found if run.info.status == "RUNNING"]
    states = {trial.number: (trial.state.name.lower(), _shown(trial.value)) for trial in own}
    wrong += [
        f"trial {number} was {was}, is {states.get(number)}"
        for number, was in acknowledged.items()
        if states.get(number) != was
    ]
    wrong += [part for trial in own for part in _of_trial(project, trial, found)]
    complete = [trial for trial in own if trial.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    if f"best {METRIC} {_shown(best.value)}, trial {best.number}:" not in said:
        wrong.append(f"the best is trial {best.number}, which was not told")
    return wrong + _of_parent(found, best, len(complete))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _of_trial(project: Project, trial: Any, found: list[Any]) -> list[str]:
    """A complete trial has one finished run with each point once; a failed one none, and its reason."""
    searched = [run for run in found if run.data.tags.get("stage") == "search"]
    mine = [run for run in searched if run.data.tags["configuration"] == params_key(trial.params)]
    finished = [run for run in mine if run.info.status == "FINISHED"]
    if trial.state.name == "FAIL":
        wrong = [] if "SIGKILL" in trial.user_attrs.get("reason", "") else [f"trial {trial.number} failed by itself"]
        of_it = [run for run in mine if run.data.tags["trial"] == str(trial.number)]
        return wrong + [
            f"run of failed trial {trial.number} is {run.info.status}" for run in of_it if run.info.status != "FAILED"
        ]
    if len(finished) != 1:
        return [f"trial {trial.number} has {len(finished)} finished runs"]
    wrong = []
    if finished[0].data.metrics.get(f"selected/{METRIC}") != trial.value:
        wrong.append(f"trial {trial.number} has another value than its run")
    points = runs.points(project.uri, finished[0])
    epochs = sorted(epoch for key, epoch, _ in points if key == METRIC)
    if epochs != list(range(EPOCHS)) or len({point[:2] for point in points}) != len(points):
        wrong.append(f"trial {trial.number}: points of epochs {epochs}")
    return wrong


def _of_parent(found: list[Any], best: Any, complete: int) -> list[str]:
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    wrong = [] if parent.info.status == "FINISHED" else [f"the study's run is {parent.info.status}"]
    kept = {key: parent.data.metrics.get(key) for key in (f"best/{METRIC}", "trials/complete", "confirmed")}
    if kept != {f"best/{METRIC}": best.value, "trials/complete": complete, "confirmed": 1}:
        wrong.append(f"the study's run says {kept}, not {best.value}, {complete}, 1")
    return wrong
