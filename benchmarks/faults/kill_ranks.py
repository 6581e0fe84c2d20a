"""`kill -9` of one of two or four training processes (gloo); compare the losses with those of one process."""

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runs
from bench import Bench, Project, Row, record_errors
from commands import Command, is_alive, process_tree, until
from kill_fits import NOT_STARTED

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "16", "--trainer.max_epochs", "10"]
CURVES = ["digits-mlp", "--model.dropout", "0", "--data.batch_size", "64", "--trainer.max_epochs", "5"]
TOLERANCE = 1e-4  # of a loss, relative
EXACT = 2  # up to two processes a resumed fit is bit-identical; four differ in the order of sums
GRACE_S = 30.0  # as torchrun: from SIGTERM to SIGKILL


Losses = dict[tuple[str, int], float]  # by metric and epoch


@dataclass(frozen=True)
class Launcher:
    """How the processes of a training are started.

    Attributes:
        name: Name in the table.
        ranks: Number of processes.
        kills: Number of kills.
        start: Starts a command, and returns the processes that it started itself.
    """

    name: str
    ranks: int
    kills: int
    start: Callable[[Bench, Project, int, list[str]], list[Command]]


def ddp_arguments(ranks: int) -> list[str]:
    return ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]


def by_lightning(bench: Bench, project: Project, ranks: int, argv: list[str]) -> list[Command]:
    """Start the first process; Lightning starts the others with `python run_litlab.py`."""
    path = ":".join(str(part) for part in (Path(__file__).parents[2], os.environ.get("PYTHONPATH", "")) if str(part))
    log = f"{project.folder.name}.txt"
    return [bench.litlab(*argv, uri=project.uri, environment={"PYTHONPATH": path}, log=log)]


def by_environment(bench: Bench, project: Project, ranks: int, argv: list[str]) -> list[Command]:
    """Start all processes, preloaded, with the environment variables of torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "TORCHELASTIC_RUN_ID": port}
    shared |= {"LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    return [
        bench.litlab(
            *argv,
            uri=project.uri,
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            log=f"{project.folder.name}-{rank}.txt",
        )
        for rank in range(ranks)
    ]


LAUNCHERS = [
    Launcher("two processes, as torchrun starts them", 2, 5, by_environment),
    Launcher("two processes that Lightning starts (`--trainer.devices 2`)", 2, 3, by_lightning),
    Launcher("four processes, as torchrun starts them", 4, 3, by_environment),
]
QUICK = [Launcher(LAUNCHERS[0].name, 2, 1, by_environment)]


def total(quick: bool) -> int:
    return sum(launcher.kills for launcher in (QUICK if quick else LAUNCHERS)) + (2 if quick else 3)


def table(bench: Bench) -> list[Row]:
    """Return a row for each launcher, and one for the losses."""
    rows = [_killed_row(bench, number, launcher) for number, launcher in enumerate(QUICK if bench.quick else LAUNCHERS)]
    return [*rows, _losses_row(bench)]


def _killed_row(bench: Bench, number: int, launcher: Launcher) -> Row:
    reference, lost = bench.project(f"ranks-reference-{number}"), list[str]()
    seconds = _train_reference(bench, reference, launcher)
    kills, fits, largest = 0, 0, 0.0
    while kills < launcher.kills:
        project = bench.project(f"ranks-{number}-{fits}")
        more_kills, messages = _one(bench, project, launcher, seconds, launcher.kills - kills)
        with record_errors(messages, "check"):
            (undisturbed,) = runs.all_runs(reference.uri)
            trained = [run for run in runs.all_runs(project.uri) if run.data.metrics]
            messages += [] if len(trained) == 1 else [f"{len(trained)} runs"]
            if launcher.ranks <= EXACT:
                ids = trained[-1].info.run_id, undisturbed.info.run_id
                messages += runs.differences(project.uri, ids[0], reference.uri, ids[1])
            else:
                messages += [] if trained[-1].info.status == "FINISHED" else [f"the run is {trained[-1].info.status}"]
                losses = _losses(project, trained[-1]), _losses(reference, undisturbed)
                surplus = len(runs.metric_values(project.uri, trained[-1]))
                surplus -= len(runs.metric_values(reference.uri, undisturbed))
                messages += [f"{surplus} metric values too many"] if surplus else []
                largest = max(largest, _max_difference(*losses))
                messages += [f"a difference of {largest:.1e}"] if largest > TOLERANCE else []
        kills, fits = kills + more_kills, fits + 1
        lost += [f"{project.folder.name}: {message}" for message in messages]
        if messages and not more_kills:
            break  # fails without any kill
    same = "same weights and metrics"
    if launcher.ranks > EXACT:
        same = f"same number of metric values; largest relative difference of a loss {largest:.1e}"
    outcome = f"all processes ended; after `litlab resume` with as many processes, {same}"
    return Row(f"kill -9 of one of {launcher.name}", f"{kills} kills in {fits} fits", outcome, lost)


def _train_reference(bench: Bench, project: Project, launcher: Launcher) -> float:
    """Train without faults, and return the seconds."""
    commands = launcher.start(bench, project, launcher.ranks, ["fit", *CASE, *ddp_arguments(launcher.ranks)])
    if codes := [command.exit_code() for command in commands if command.exit_code()]:
        raise RuntimeError(f"{launcher.name}: exit code {codes[0]}: {commands[0].last_line}")
    return commands[0].seconds


def _one(bench: Bench, project: Project, launcher: Launcher, seconds: float, target: int) -> tuple[int, list[str]]:
    """Run a fit that is killed at most three times; return the number of kills, and what went wrong."""
    chance, lost, kills, run_id = bench.random(project.folder.name), list[str](), 0, ""
    while True:
        argv = ["resume", run_id] if run_id else ["fit", *CASE, *ddp_arguments(launcher.ranks)]
        commands = launcher.start(bench, project, launcher.ranks, argv)
        if kills < min(3, target) and _kill_one(commands, launcher, chance, chance.uniform(0.1, 1.0) * seconds, lost):
            kills += 1
            bench.step()
        elif code := next((command.exit_code() for command in commands if command.exit_code()), 0):
            for command in commands:  # as torchrun does
                command.kill()
            if NOT_STARTED not in commands[0].output:
                if "is FINISHED" not in commands[0].output:
                    lost.append(f"exit code {code}: {commands[0].last_line}")
                bench.sync_if_requested(commands[0], project)
                return kills, lost
            run_id = "new"
        else:
            return kills, lost
        all_runs = runs.all_runs(project.uri)
        run_id = "" if run_id == "new" or not all_runs else all_runs[-1].info.run_id


def _kill_one(
    commands: list[Command], launcher: Launcher, chance: random.Random, seconds: float, lost: list[str]
) -> bool:
    """Kill one process after some seconds, and check that the others end; return False if all had ended before."""
    if commands[0].wait(seconds) is not None:
        return False
    pids = [pid for command in commands for pid in _ranks(command)]
    if not pids:
        return False
    victim = chance.choice(pids)
    os.kill(victim, signal.SIGKILL)
    if launcher.start is by_environment:  # torchrun ends the others when one dies
        for pid in pids:
            if pid != victim and is_alive(pid):
                os.kill(pid, signal.SIGTERM)
    limit = GRACE_S if launcher.start is by_environment else 120.0
    if not until(lambda: not any(map(is_alive, pids)), limit):
        left = [pid for pid in pids if is_alive(pid)]
        if launcher.start is not by_environment:  # torchrun would kill them
            lost.append(f"{len(left)} processes did not end within {limit:.0f} s")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    for command in commands:
        command.process.join()
    return True


def _losses(project: Project, run: Any) -> Losses:
    return {(key, epoch): value for key, epoch, value in runs.metric_values(project.uri, run) if key.endswith("loss")}


def _max_difference(one: Losses, other: Losses) -> float:
    """Return the largest relative difference."""
    return max((abs(one[key] - other[key]) / max(abs(one[key]), 1e-12) for key in one.keys() & other.keys()), default=0)


def _ranks(command: Command) -> list[int]:
    """Return a process and those that Lightning started for it, if they are alive."""
    workers = []
    for pid in process_tree(command.pid)[1:]:
        with contextlib.suppress(OSError):
            workers += [pid] if b"run_litlab.py" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return [pid for pid in (command.pid, *workers) if is_alive(pid)]


def _losses_row(bench: Bench) -> Row:
    """Compare the losses of one, two and four processes."""
    numbers: tuple[int, ...] = (1, 2) if bench.quick else (1, 2, 4)
    losses: dict[int, Losses] = {}
    lost: list[str] = []
    for ranks in numbers:
        project = bench.project(f"curves-{ranks}")
        start = by_environment if ranks > 1 else by_lightning
        commands = start(bench, project, ranks, ["fit", *CURVES, *(ddp_arguments(ranks) if ranks > 1 else [])])
        lost += [f"{ranks} processes: exit code {command.exit_code()}" for command in commands if command.exit_code()]
        with record_errors(lost, f"{ranks} processes"):
            (run,) = runs.all_runs(project.uri)
            losses[ranks] = _losses(project, run)
        bench.step()
    largest = 0.0
    for ranks in numbers[1:]:
        same = losses.get(1, {}).keys() == losses.get(ranks, {}).keys()
        lost += [] if same else [f"{ranks} processes: other metrics or epochs"]
        largest = max(largest, _max_difference(losses.get(1, {}), losses.get(ranks, {})))
    lost += [f"a difference of {largest:.1e}"] if largest > TOLERANCE else []
    fault = f"same global batch with {', '.join(map(str, numbers))} processes: every value of every loss"
    outcome = f"{len(losses.get(1, {}))} values each; largest relative difference {largest:.1e}"
    return Row(fault, f"{len(numbers)} fits", outcome, lost)
