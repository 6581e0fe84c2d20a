"""A disk that is full in the middle of a fit: a small file system of its own; then there is space again."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kill_fits
import runs
from bench import Bench, Project, Row, noted
from commands import Command, until
from kill_fits import Whole

from pipelines.checkpoints.files import find_corruption

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "8", "--trainer.max_epochs", "12"]
SIZE_MB = 8
TIMES = 4
WHAT = {"files": "with the runs' files", "all": "with the runs' files and the database"}


def total(quick: bool) -> int:
    return len(WHAT) if quick else TIMES * len(WHAT)


def table(bench: Bench) -> list[Row]:
    """A row for each thing that may be on the full disk."""
    said = _mountable(bench.folder / "mounted")
    times = 1 if bench.quick else TIMES
    rows, reference = [], None if said else kill_fits.whole(bench, CASE, "whole")
    for which, words in WHAT.items():
        what = f"a disk ({SIZE_MB} MB) {words} is full in mid-run; then space is made, and `litlab resume`"
        if reference is None:
            rows.append(Row(what, "0", f"no file system can be mounted: {said}", tried=False))
            continue
        lost = [said for turn in range(times) for said in _one(bench, which, turn, reference)]
        found = "said why and what to do, exit code 1, checkpoints whole; then the same weights and metrics"
        rows.append(Row(what, str(times), found, lost))
    return rows


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A small file system in a folder.

    Raises:
        subprocess.CalledProcessError: This user, or this machine, cannot have one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mountable(folder: Path) -> str:
    """Why none can be mounted; empty if one can."""
    try:
        with mounted(folder):
            return ""
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip()
    except OSError as error:
        return str(error)


def _one(bench: Bench, which: str, turn: int, reference: Whole) -> list[str]:
    label, lost = f"disk-{which}-{turn}", list[str]()
    project = bench.project(label)
    place = project.folder if which == "all" else project.folder / "mlartifacts"
    database = (project.folder / "mlflow.db").read_bytes()
    with mounted(place), noted(lost, label):
        (project.folder / "mlflow.db").write_bytes(database)
        lost += _filled(bench, project, place, label, which)
        lost += _resumed(bench, project, label, reference)
    bench.step()
    return [f"{label}: {said}" for said in lost]


def _filled(bench: Bench, project: Project, place: Path, label: str, which: str) -> list[str]:
    """Fit until the disk is full, and see what the fit makes of it."""
    moment = bench.random(label).randrange(1, int(CASE[-1]) - 1)
    command = bench.litlab("fit", *CASE, uri=project.uri, log=f"{label}.txt")
    until(lambda: _epochs(project) >= moment or command.wait(0) is not None)
    ballast = place / "ballast"
    _fill(ballast, command)
    lost = [] if command.end() == 1 else [f"exit code {command.end()}: {command.last}"]
    lost += [] if "no space left" in command.text.lower() else [f"it does not say why: {command.last}"]
    lost += [] if "litlab resume" in command.text else ["it does not say how to go on"]
    lost += ["a traceback"] if "Traceback" in command.text else []
    ballast.unlink()
    status = runs.every(project.uri)[0].info.status
    if which == "files" and status != "FAILED":
        lost.append(f"the run is {status}")
    for path in project.folder.rglob("*.ckpt"):
        lost += [f"{path.name}: {said}" for said in [find_corruption(path)] if said]
    return lost


def _epochs(project: Project) -> int:
    return sum(path.read_text().count('"val/loss"') for path in project.folder.rglob("metrics.jsonl"))


def _fill(ballast: Path, command: Command) -> None:
    """Take all space, and what becomes free, until the command has ended."""
    with ballast.open("ab", buffering=0) as file:
        for _ in range(4000):
            with contextlib.suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            if command.wait(0.02) is not None:
                return


def _resumed(bench: Bench, project: Project, label: str, reference: Whole) -> list[str]:
    (run,) = runs.every(project.uri)
    command = bench.litlab("resume", run.info.run_id, uri=project.uri, log=f"{label}.txt")
    lost = [] if command.end() == 0 else [f"resume: exit code {command.end()}: {command.last}"]
    lost += runs.sound(project)
    return lost + runs.differences(project.uri, run.info.run_id, reference.project.uri, reference.run_id)
