"""`kill -9` of trainings, fork server, controller or all processes of a sweep at random; then count trials and runs."""

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
from bench import Bench, Project, Row, Tally, format_counts, record_errors
from commands import Command, is_alive, process_tree, until

from sweeps.search.trial_state import params_key

TOTAL, TRIALS, EPOCHS, WORKERS = 105, 50, 2, 2
METRIC = "val/acc"
SPACE = {"model.dropout": {"low": 0.0, "high": 0.6}, "model.optimizer.lr": {"low": 0.0005, "high": 0.02, "log": True}}
VICTIMS = {"trainings": 24, "fork servers": 1, "controllers": 3, "process groups": 2, "process trees": 2}  # weights
ENDED_TRIAL = re.compile(rf"^trial +(\d+)  (complete|fail)\b +(?:{METRIC} ([\d.]+))?", re.MULTILINE)
Acknowledged = dict[int, tuple[str, str]]  # by trial number: state and value as printed


@dataclass
class Studies(Tally):
    """Number of studies, trials and starts."""

    studies: int = 0
    trials: int = 0
    starts: int = 0


def total(quick: bool) -> int:
    return 3 if quick else TOTAL


def table(bench: Bench) -> list[Row]:
    """Return one row for all studies."""
    tally = Studies(total(bench.quick))
    lanes = 1 if bench.quick else min(2, bench.cores)  # one study trains while the controller of another starts
    bench.run_parallel([partial(_studies, bench, lane, tally) for lane in range(lanes)])
    trials = "6" if bench.quick else str(TRIALS)
    fault = f"kill -9 of processes of `litlab sweep --workers {WORKERS}` (`digits-mlp`, {trials} trials each)"
    outcome = f"killed: {format_counts(tally.killed)}; {tally.starts} starts until all studies were complete; "
    outcome += f"{tally.trials} trials, each counted once, each complete one with its run"
    return [Row(fault, f"{tally.kills} kills in {tally.studies} studies", outcome, tally.lost)]


def _studies(bench: Bench, lane: int, tally: Studies) -> None:
    turn = 0
    while tally.kills < tally.target:
        project, kills = bench.project(f"sweep-{lane}-{turn}"), tally.kills
        lost: list[str] = []
        with record_errors(lost, "check"):
            lost += _one(bench, project, tally)
        with tally.lock:
            tally.studies += 1
            tally.lost += [f"{project.folder.name}: {message}" for message in lost]
        if lost and tally.kills == kills:
            return  # fails without any kill
        turn += 1


def _one(bench: Bench, project: Project, tally: Studies) -> list[str]:
    """Run a study under kills until it is complete or there are enough kills; return what it lost."""
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
        kills = _kill_repeatedly(bench, command, chance, tally)
        code = command.exit_code()
        printed = {int(number): (state, value) for number, state, value in ENDED_TRIAL.findall(command.output)}
        if twice := [number for number in printed if acknowledged.get(number, printed[number]) != printed[number]]:
            return [f"trial {twice[0]} was reported twice, with different results"]
        acknowledged |= printed
        if not kills or code == 0:
            break
    tally.trials += trials
    lost = [] if code == 0 else [f"exit code {code}: {command.last_line}"]
    return lost + _check(project, trials, acknowledged, command.output)


def _kill_repeatedly(bench: Bench, command: Command, chance: random.Random, tally: Studies) -> int:
    """Kill processes at random moments until the controller and its descendants end; return the number of kills."""
    known: set[int] = set()
    kills, pace = 0, chance.choice((0.5, 1.0, 2.0))
    if chance.random() < 0.8:  # starting takes longer than all trials: most kills come later
        until(lambda: ENDED_TRIAL.search(command.output) or command.wait(0) is not None)
    while command.wait(chance.uniform(0.05, 2 * pace)) is None and tally.kills < tally.target:
        known |= set(process_tree(command.pid))
        victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        pids = _pids(victim, command.pid, chance)
        if victim == "trainings" and not pids and chance.random() < 0.2:  # also while it starts and ends
            victim, pids = "controllers", [command.pid]
        killed = [_kill(pid) for pid in pids]
        if any(killed):
            kills += 1
            with tally.lock:
                tally.killed[victim] += 1
            bench.step()
    if command.wait() is None:
        command.kill()
        tally.lost.append("a sweep did not end")
    if not until(lambda: not any(map(is_alive, known)), 60):
        tally.lost.append(f"{sum(map(is_alive, known))} processes are left")
    return kills


def _pids(victim: str, controller: int, chance: random.Random) -> list[int]:
    """Return the processes of a kind of victim."""
    tree = process_tree(controller)
    trainings = [pid for pid in tree[1:] if _session(pid) == pid]
    if victim == "trainings":
        return [chance.choice(trainings)] if trainings else []
    if victim == "controllers":
        return [controller]
    if victim == "process groups":
        return [pid for pid in tree if _session(pid) == controller]
    if victim == "process trees":
        return tree
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


def _check(project: Project, trials: int, acknowledged: Acknowledged, output: str) -> list[str]:
    """Return what is lost, duplicate or wrong in a complete study."""
    import optuna

    (name,) = optuna.get_all_study_names(f"sqlite:///{project.folder / 'optuna.db'}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{project.folder / 'optuna.db'}")
    counted = [trial for trial in study.trials if "interrupted" not in trial.user_attrs]
    all_runs = runs.all_runs(project.uri)
    wrong = runs.database_errors(project)
    wrong += [] if len(counted) == trials else [f"{len(counted)} trials, not {trials}"]
    wrong += [f"trial {trial.number} is {trial.state.name}" for trial in study.trials if not trial.state.is_finished()]
    wrong += [f"run {run.info.run_name} is {run.info.status}" for run in all_runs if run.info.status == "RUNNING"]
    states = {trial.number: (trial.state.name.lower(), _format_value(trial.value)) for trial in counted}
    wrong += [
        f"trial {number} was reported as {reported}, is {states.get(number)}"
        for number, reported in acknowledged.items()
        if states.get(number) != reported
    ]
    wrong += [part for trial in counted for part in _check_trial(project, trial, all_runs)]
    complete = [trial for trial in counted if trial.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    if f"best single trial {METRIC} {_format_value(best.value)}, trial {best.number}" not in output:
        wrong.append(f"the best is trial {best.number}, which was not printed")
    return wrong + _check_parent(all_runs, best, len(complete))


def _format_value(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _check_trial(project: Project, trial: Any, all_runs: list[Any]) -> list[str]:
    """Check that a complete trial has one finished run with each value once, and that a failed trial was killed."""
    searched = [run for run in all_runs if run.data.tags.get("stage") == "search"]
    own = [run for run in searched if run.data.tags["configuration"] == params_key(trial.params)]
    finished = [run for run in own if run.info.status == "FINISHED"]
    if trial.state.name == "FAIL":
        killed = "SIGKILL" in trial.user_attrs.get("reason", "")
        wrong = [] if killed else [f"trial {trial.number} failed without a kill"]
        statuses = [run.info.status for run in own if run.data.tags["trial"] == str(trial.number)]
        return wrong + [f"run of failed trial {trial.number} is {status}" for status in statuses if status != "FAILED"]
    if len(finished) != 1:
        return [f"trial {trial.number} has {len(finished)} finished runs"]
    wrong = []
    if finished[0].data.metrics.get(f"selected/{METRIC}") != trial.value:
        wrong.append(f"trial {trial.number} and its run have different values")
    values = runs.metric_values(project.uri, finished[0])
    epochs = sorted(epoch for key, epoch, _ in values if key == METRIC)
    if epochs != list(range(EPOCHS)) or len({value[:2] for value in values}) != len(values):
        wrong.append(f"trial {trial.number}: values of epochs {epochs}")
    return wrong


def _check_parent(all_runs: list[Any], best: Any, complete: int) -> list[str]:
    (parent,) = [run for run in all_runs if "mlflow.parentRunId" not in run.data.tags]
    wrong = [] if parent.info.status == "FINISHED" else [f"the study's run is {parent.info.status}"]
    logged = {key: parent.data.metrics.get(key) for key in (f"best/{METRIC}", "trials/complete", "confirmed")}
    if logged != {f"best/{METRIC}": best.value, "trials/complete": complete, "confirmed": 1}:
        wrong.append(f"the study's run has {logged}, not {best.value}, {complete}, 1")
    return wrong
