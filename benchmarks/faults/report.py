"""The table: kept kind by kind while it is made, shown on the screen, and written between two marks of a document."""

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

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
PACKAGES = ("torch", "lightning", "mlflow", "optuna")


class Results:
    """A file with the rows of each kind that is done; those of other settings, or of other sources, do not count.

    Args:
        path: The file.
        settings: What the rows depend on.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        known = json.loads(path.read_text()) if path.is_file() else {}
        self.kinds: dict[str, Any] = known["kinds"] if known.get("settings") == settings else {}

    def rows(self, kind: str) -> list[Row]:
        return [Row(**row) for row in self.kinds[kind]["rows"]]

    def add(self, kind: str, rows: list[Row], seconds: float) -> None:
        """Keep a kind, at once or not at all."""
        self.kinds[kind] = {"rows": [asdict(row) for row in rows], "seconds": seconds}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"settings": self._settings, "kinds": self.kinds}, indent=2))
        part.replace(self._path)

    def forget(self) -> None:
        """The next call begins anew."""
        self._path.unlink(missing_ok=True)

    @property
    def lost(self) -> list[str]:
        return [said for kind in self.kinds for row in self.rows(kind) for said in row.lost]

    @property
    def seconds(self) -> float:
        return sum(float(kind["seconds"]) for kind in self.kinds.values())


def source() -> str:
    """The commit, and what is changed in it."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ":/*.py", ":/*.yaml")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def lost_in(row: Row) -> str:
    if not row.tried:
        return "not tried here"
    return f"{len(row.lost)}: {row.lost[0][:120]}" if row.lost else "nothing"


def show(results: Results, console: Console) -> None:
    """The table on the screen, and every loss below it."""
    shown = Table("what was done", "how often", "what came out", "lost", box=None, pad_edge=False)
    for kind in results.kinds:
        for row in results.rows(kind):
            shown.add_row(row.what, row.times, row.found, lost_in(row), style="" if not row.lost else "red")
    console.print(shown)
    for said in results.lost:
        console.print(f"lost: {said}", markup=False, highlight=False)
    console.print(f"lost in all: {len(results.lost) or 'nothing'}; {results.seconds:.0f} s")


def markdown(results: Results, command: str, cores: int) -> str:
    """The table for the document, and what it was made with."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    verdict = f"lost in all: {len(results.lost)}" if results.lost else "lost in all: nothing"
    lines = [
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {cores} cores ({platform.machine()}, {sys.platform}), "
        f"{results.seconds:.0f} s; Python {platform.python_version()}, {versions}; {verdict}.",
        "",
        "| what was done | how often | what came out | lost | s |",
        "|---|---|---|---|---|",
    ]
    for kind in results.kinds:
        for number, row in enumerate(results.rows(kind)):
            seconds = "" if number else f"{results.kinds[kind]['seconds']:.0f}"
            cells = (row.what, row.times, row.found, lost_in(row), seconds)
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def rewrite(document: Path, text: str) -> None:
    """Put a text between the two marks.

    Raises:
        ValueError: The document has no such marks.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document}: no marks {BEGIN} and {END}")
    part = document.with_name(f".{document.name}.{os.getpid()}")
    part.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    part.replace(document)
