"""Fill a small file system during a fit; then free space and resume."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kill_fits
import runs
from bench import Bench, Project, Row, record_errors
from commands import Command, until
from kill_fits import Reference

from pipelines.checkpoints.files import find_corruption

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "8", "--trainer.max_epochs", "12"]
SIZE_MB = 8
TIMES = 4
CONTENTS = {"files": "with the runs' files", "all": "with the runs' files and the database"}


def total(quick: bool) -> int:
    return len(CONTENTS) if quick else TIMES * len(CONTENTS)


def table(bench: Bench) -> list[Row]:
    """Return a row for each set of files that are on the full disk."""
    obstacle = _mount_error(bench.folder / "mounted")
    times = 1 if bench.quick else TIMES
    rows, reference = [], None if obstacle else kill_fits.train_reference(bench, CASE, "reference")
    for which, words in CONTENTS.items():
        fault = f"disk ({SIZE_MB} MB) {words} full during a run; then space freed and `litlab resume`"
        if reference is None:
            rows.append(Row(fault, "0", f"no file system can be mounted: {obstacle}", tried=False))
            continue
        lost = [message for turn in range(times) for message in _one(bench, which, turn, reference)]
        outcome = "message with cause and remedy, exit code 1, checkpoints intact; then same weights and metrics"
        rows.append(Row(fault, str(times), outcome, lost))
    return rows


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a small file system on a folder.

    Raises:
        subprocess.CalledProcessError: This user or this machine cannot mount one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount_error(folder: Path) -> str:
    """Return why no file system can be mounted; "" if one can."""
    try:
        with mounted(folder):
            return ""
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip()
    except OSError as error:
        return str(error)


def _one(bench: Bench, which: str, turn: int, reference: Reference) -> list[str]:
    label, lost = f"disk-{which}-{turn}", list[str]()
    project = bench.project(label)
    mount_point = project.folder if which == "all" else project.folder / "mlartifacts"
    database = (project.folder / "mlflow.db").read_bytes()
    with mounted(mount_point), record_errors(lost, label):
        (project.folder / "mlflow.db").write_bytes(database)
        lost += _fit_until_full(bench, project, mount_point, label, which)
        lost += _resume(bench, project, label, reference)
    bench.step()
    return [f"{label}: {message}" for message in lost]


def _fit_until_full(bench: Bench, project: Project, mount_point: Path, label: str, which: str) -> list[str]:
    """Fill the disk during a fit, and check how the fit ends."""
    moment = bench.random(label).randrange(1, int(CASE[-1]) - 1)
    command = bench.litlab("fit", *CASE, uri=project.uri, log=f"{label}.txt")
    until(lambda: _epochs(project) >= moment or command.wait(0) is not None)
    ballast = mount_point / "ballast"
    _fill(ballast, command)
    lost = [] if command.exit_code() == 1 else [f"exit code {command.exit_code()}: {command.last_line}"]
    lost += [] if "no space left" in command.output.lower() else [f"no cause in the message: {command.last_line}"]
    lost += [] if "litlab resume" in command.output else ["no message how to continue"]
    lost += ["a traceback"] if "Traceback" in command.output else []
    ballast.unlink()
    status = runs.all_runs(project.uri)[0].info.status
    if which == "files" and status != "FAILED":
        lost.append(f"the run is {status}")
    for path in project.folder.rglob("*.ckpt"):
        lost += [f"{path.name}: {message}" for message in [find_corruption(path)] if message]
    return lost


def _epochs(project: Project) -> int:
    return sum(path.read_text().count('"val/loss"') for path in project.folder.rglob("metrics.jsonl"))


def _fill(ballast: Path, command: Command) -> None:
    """Fill all free space, also space that becomes free later, until the command ends."""
    with ballast.open("ab", buffering=0) as file:
        for _ in range(4000):
            with contextlib.suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            if command.wait(0.02) is not None:
                return


def _resume(bench: Bench, project: Project, label: str, reference: Reference) -> list[str]:
    (run,) = runs.all_runs(project.uri)
    command = bench.litlab("resume", run.info.run_id, uri=project.uri, log=f"{label}.txt")
    lost = [] if command.exit_code() == 0 else [f"resume: exit code {command.exit_code()}: {command.last_line}"]
    lost += runs.database_errors(project)
    return lost + runs.differences(project.uri, run.info.run_id, reference.project.uri, reference.run_id)
