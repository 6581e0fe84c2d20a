"""The table of results: save it after each kind of fault, print it, and write it between two marks of a document."""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import Row
from rich.console import Console
from rich.table import Table

MARKS = "<!-- faults: begin -->", "<!-- faults: end -->"
CLUSTER_MARKS = "<!-- faults of a cluster: begin -->", "<!-- faults of a cluster: end -->"
PACKAGES = ("torch", "lightning", "mlflow", "optuna")


class Results:
    """A file with the rows of each finished kind. Rows from different settings or source code are ignored.

    Args:
        path: The file.
        settings: Settings that the rows depend on.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        saved = json.loads(path.read_text()) if path.is_file() else {}
        self.kinds: dict[str, Any] = saved["kinds"] if saved.get("settings") == settings else {}

    def rows(self, kind: str) -> list[Row]:
        return [Row(**row) for row in self.kinds[kind]["rows"]]

    def add(self, kind: str, rows: list[Row], seconds: float) -> None:
        """Save the rows of a kind, atomically."""
        self.kinds[kind] = {"rows": [asdict(row) for row in rows], "seconds": seconds}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"settings": self._settings, "kinds": self.kinds}, indent=2))
        part.replace(self._path)

    def delete(self) -> None:
        """Delete the file, so that the next call starts again."""
        self._path.unlink(missing_ok=True)

    @property
    def lost(self) -> list[str]:
        return [message for kind in self.kinds for row in self.rows(kind) for message in row.lost]

    @property
    def seconds(self) -> float:
        return sum(float(kind["seconds"]) for kind in self.kinds.values())


def source() -> str:
    """Return the commit, and whether the source code has been changed since."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--", ":/*.py", ":/*.yaml")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def format_lost(row: Row) -> str:
    if not row.tried:
        return "not tried here"
    return f"{len(row.lost)}: {row.lost[0][:120]}" if row.lost else "nothing"


def show(results: Results, console: Console) -> None:
    """Print the table, and every loss below it."""
    table = Table("fault", "times", "outcome", "lost", box=None, pad_edge=False)
    for kind in results.kinds:
        for row in results.rows(kind):
            table.add_row(row.fault, row.times, row.outcome, format_lost(row), style="" if not row.lost else "red")
    console.print(table)
    for message in results.lost:
        console.print(f"lost: {message}", markup=False, highlight=False)
    console.print(f"lost in total: {len(results.lost) or 'nothing'}; {results.seconds:.0f} s")


def markdown(results: Results, command: str, cores: int) -> str:
    """Return the table as Markdown, with the command, date, machine and versions."""
    packages = [*PACKAGES, *(["ray"] if "cluster" in results.kinds else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    total = f"lost in total: {len(results.lost) or 'nothing'}"
    lines = [
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {cores} cores ({platform.machine()}, {sys.platform}), "
        f"{results.seconds:.0f} s; Python {platform.python_version()}, {versions}; {total}.",
        "",
        "| fault | times | outcome | lost | s |",
        "|---|---|---|---|---|",
    ]
    for kind in results.kinds:
        for number, row in enumerate(results.rows(kind)):
            seconds = "" if number else f"{results.kinds[kind]['seconds']:.0f}"
            cells = (row.fault, row.times, row.outcome, format_lost(row), seconds)
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def rewrite(document: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Replace the text between two marks of a document.

    Raises:
        ValueError: The document does not have the marks.
    """
    before, begin, rest = document.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{document}: no marks {marks[0]} and {marks[1]}")
    part = document.with_name(f".{document.name}.{os.getpid()}")
    part.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    part.replace(document)
