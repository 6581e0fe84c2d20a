"""`litlab doctor`: whether all is well here, and what to do where it is not."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipelines.diagnostics import databases, machine, runs
from pipelines.diagnostics import installation as installed
from pipelines.diagnostics.finding import Check, Finding, Place, guarded
from pipelines.diagnostics.torch_process import Child
from pipelines.runtime.text import escape_control_characters

HELP = """usage: litlab doctor [--fix] [--data_dir DIR] [--tracking_uri URI]

Looks at what a training needs, one line each: ok, or what to do. Python and
packages, torch and GPUs, the databases of runs and of studies, runs that say
RUNNING though their process is gone, data files, disk, memory, ports.

  --fix               mends what can be mended: tables of an older MLflow or
                        Optuna (after a copy), runs without a process (KILLED;
                        litlab resume still takes them), halves of files. Says
                        what it did, and deletes nothing that somebody made
  --data_dir DIR      where data sets are (data)
  --tracking_uri URI  where runs are kept (mlflow.db of this project)

Exit code: 0 all is well, 1 something is to be done."""
CHECKS: dict[str, Check] = {
    "Python": installed.python,
    "packages": installed.packages,
    "torch pair": installed.pair,
    "git": installed.git,
    "disk": machine.space,
    "writing": machine.writing,
    "memory": machine.memory,
    "ports": machine.ports,
    "leftovers": machine.leftovers,
    "optuna.db": databases.studies,
}
STYLES = {"ok": "green", "fixed": "cyan", "to do": "bold yellow"}


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab doctor [--fix] [--data_dir DIR] [--tracking_uri URI]`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("--fix", action="store_true")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--tracking_uri")
    options = parser.parse_args(list(argv))
    place = Place(options.tracking_uri, options.data_dir.expanduser(), options.fix)
    open_ends = [_show(finding) for finding in examine(place)].count("to do")
    if open_ends:
        print(f"litlab: {open_ends} to do", file=sys.stderr)
    return 1 if open_ends else 0


def examine(place: Place) -> Iterator[Finding]:
    """All checks, one after another, while torch is looked at in a process of its own."""
    child = Child(place.data_dir)
    for name, check in CHECKS.items():
        yield from guarded(partial(check, place), name)
    store = guarded(partial(databases.runs, place), "mlflow.db")
    yield from store
    can_be_read = all(finding.state != "to do" for finding in store)
    if can_be_read:
        yield from guarded(partial(runs.orphans, place), "runs")
    yield from guarded(partial(runs.unsent, place), "unsent")
    yield from child.findings(_checkpoints(place) if can_be_read else [])


def _checkpoints(place: Place) -> list[Path]:
    with suppress(Exception):  # the line of the runs has said what is wrong with the store
        return runs.checkpoints(place)
    return []


def _show(finding: Finding) -> str:
    from rich.console import Console
    from rich.text import Text

    state = Text(f"{finding.state:<7}", style=STYLES[finding.state])
    Console(highlight=False, soft_wrap=True).print(
        state + Text(escape_control_characters(f"{finding.name:<12}{finding.said}"))
    )
    return finding.state
