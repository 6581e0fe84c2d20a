"""Trainings by two and four processes (gloo): `kill -9` of one of them, and the same losses as by one process."""

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import runs
from bench import Bench, Project, Row, noted
from commands import Command, family, is_alive, until

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "16", "--trainer.max_epochs", "10"]
CURVES = ["digits-mlp", "--data.batch_size", "64", "--trainer.max_epochs", "5"]
TOLERANCE = 1e-4  # of a loss, relative
GRACE_S = 30.0  # torchrun's own, from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Way:
    """How the processes of a training are started, and how many of them are killed."""

    name: str
    ranks: int
    kills: int
    start: Callable[[Bench, Project, int, list[str]], list[Command]]


def several(ranks: int) -> list[str]:
    return ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]


def by_lightning(bench: Bench, project: Project, ranks: int, argv: list[str]) -> list[Command]:
    """The first process; it starts the others, by `python litlab.py`."""
    path = ":".join(str(part) for part in (Path(__file__).parents[2], os.environ.get("PYTHONPATH", "")) if str(part))
    log = f"{project.folder.name}.txt"
    return [bench.litlab(*argv, uri=project.uri, environment={"PYTHONPATH": path}, log=log)]


def by_hand(bench: Bench, project: Project, ranks: int, argv: list[str]) -> list[Command]:
    """All processes, warm, with torchrun's environment."""
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


WAYS = [
    Way("two processes, as torchrun starts them", 2, 5, by_hand),
    Way("two processes that Lightning starts (`--trainer.devices 2`)", 2, 3, by_lightning),
    Way("four processes, as torchrun starts them", 4, 3, by_hand),
]
QUICK = [Way(WAYS[0].name, 2, 1, by_hand)]


def total(quick: bool) -> int:
    return sum(way.kills for way in (QUICK if quick else WAYS)) + (2 if quick else 3)


def table(bench: Bench) -> list[Row]:
    """A row for each way to start the processes, and one for the losses."""
    rows = [_killed(bench, number, way) for number, way in enumerate(QUICK if bench.quick else WAYS)]
    return [*rows, _alike(bench)]


def _killed(bench: Bench, number: int, way: Way) -> Row:
    reference, lost = bench.project(f"ranks-whole-{number}"), list[str]()
    began = _whole(bench, reference, way)
    kills = fits = 0
    while kills < way.kills:
        project = bench.project(f"ranks-{number}-{fits}")
        more, said = _one(bench, project, way, began, way.kills - kills)
        with noted(said, "the check"):
            (whole,), found = runs.every(reference.uri), [run for run in runs.every(project.uri) if run.data.metrics]
            said += [] if len(found) == 1 else [f"{len(found)} runs"]
            said += runs.differences(project.uri, found[-1].info.run_id, reference.uri, whole.info.run_id)
        kills, fits, lost = kills + more, fits + 1, [*lost, *(f"{project.folder.name}: {one}" for one in said)]
        if said and not more:
            break  # nothing works here
    found_words = "all processes ended; after `litlab resume` with as many the same weights and metrics"
    return Row(f"kill -9 of one of {way.name}", f"{kills} kills of {fits} fits", found_words, lost)


def _whole(bench: Bench, project: Project, way: Way) -> float:
    """Train without a fault; returns the seconds."""
    commands = way.start(bench, project, way.ranks, ["fit", *CASE, *several(way.ranks)])
    if codes := [command.end() for command in commands if command.end()]:
        raise RuntimeError(f"{way.name}: exit code {codes[0]}: {commands[0].last}")
    return commands[0].seconds


def _one(bench: Bench, project: Project, way: Way, seconds: float, wanted: int) -> tuple[int, list[str]]:
    """A fit, killed at most three times; the number of kills, and what went wrong."""
    chance, lost, kills, run_id = bench.random(project.folder.name), list[str](), 0, ""
    while True:
        argv = ["resume", run_id] if run_id else ["fit", *CASE, *several(way.ranks)]
        commands = way.start(bench, project, way.ranks, argv)
        if kills < min(3, wanted) and _shot(commands, way, chance, chance.uniform(0.1, 1.0) * seconds, lost):
            kills += 1
            bench.step()
        elif code := next((command.end() for command in commands if command.end()), 0):
            for command in commands:  # as torchrun does
                command.kill()
            said = commands[0].text
            if "ended before it began" not in said:
                if "is FINISHED" not in said:
                    lost.append(f"exit code {code}: {commands[0].last}")
                bench.tell(commands[0], project)
                return kills, lost
            run_id = "new"
        else:
            return kills, lost
        found = runs.every(project.uri)
        run_id = "" if run_id == "new" or not found else found[-1].info.run_id


def _shot(commands: list[Command], way: Way, chance: random.Random, seconds: float, lost: list[str]) -> bool:
    """Kill one process after so long, unless all have ended; see that the others end."""
    if commands[0].wait(seconds) is not None:
        return False
    everybody = [pid for command in commands for pid in _ranks(command)]
    if not everybody:
        return False
    victim = chance.choice(everybody)
    os.kill(victim, signal.SIGKILL)
    if way.start is by_hand:  # torchrun ends the others when one has died
        for pid in everybody:
            if pid != victim and is_alive(pid):
                os.kill(pid, signal.SIGTERM)
    limit = GRACE_S if way.start is by_hand else 120.0
    if not until(lambda: not any(map(is_alive, everybody)), limit):
        left = [pid for pid in everybody if is_alive(pid)]
        lost.append(f"{len(left)} processes did not end within {limit:.0f} s")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    for command in commands:
        command.process.join()
    return True


def _ranks(command: Command) -> list[int]:
    """A process, and those that Lightning has started for it."""
    started = []
    for pid in family(command.pid)[1:]:
        with contextlib.suppress(OSError):
            started += [pid] if b"litlab.py" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return [pid for pid in (command.pid, *started) if is_alive(pid)]


def _alike(bench: Bench) -> Row:
    """The losses of one, two and four processes."""
    numbers: tuple[int, ...] = (1, 2) if bench.quick else (1, 2, 4)
    points: dict[int, dict[tuple[str, int], float]] = {}
    lost: list[str] = []
    for ranks in numbers:
        project = bench.project(f"curves-{ranks}")
        start = partial(by_hand, bench, project, ranks) if ranks > 1 else partial(by_lightning, bench, project, ranks)
        commands = start(["fit", *CURVES, *(several(ranks) if ranks > 1 else [])])
        lost += [f"{ranks} processes: exit code {command.end()}" for command in commands if command.end()]
        with noted(lost, f"{ranks} processes"):
            (run,) = runs.every(project.uri)
            points[ranks] = {(key, epoch): value for key, epoch, value in runs.points(project.uri, run)}
        bench.step()
    largest = 0.0
    for ranks in numbers[1:]:
        one, other = points.get(1, {}), points.get(ranks, {})
        lost += [] if one.keys() == other.keys() else [f"{ranks} processes: other points"]
        for key in one.keys() & other.keys():
            largest = max(largest, abs(one[key] - other[key]) / max(abs(one[key]), 1e-12))
    lost += [f"a difference of {largest:.1e}"] if largest > TOLERANCE else []
    what = f"the same global batch by {', '.join(map(str, numbers))} processes: every point of every metric"
    found = f"{len(points.get(1, {}))} points each; largest relative difference {largest:.1e}"
    return Row(what, f"{len(numbers)} fits", found, lost)
