"""The table: results are saved cell by cell, compared, and written as the page docs/COMPATIBILITY.md."""

import json
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from cases import Case
from cells import COLUMNS, NONE, OTHER_WEIGHTS, Cell

PACKAGES = ("torch", "lightning", "torchmetrics", "mlflow", "optuna")
INTRODUCTION = """# Compatibility

What other people's modules can do with litlab, and what they can do with LightningCLI and MLFlowLogger. The modules are
in [tests/fixtures/strangers](../tests/fixtures/strangers): written in the style of public ones, each with a
configuration that LightningCLI accepts as it is. They know nothing of litlab.

`make compatibility` runs every cell and writes this page. `ARGS='--only gan vae'` selects modules,
`ARGS='--commands fit resume'` commands.

A cell has litlab first, then LightningCLI:

- **fit**, **test**, **validate**: the command succeeds, and its run is finished in MLflow. LightningCLI tests its last
  checkpoint.
- **kill -9, resume**: training is killed in the middle of an epoch, then `litlab resume` continues it. ✓: the final
  weights are those of an uninterrupted training, bit by bit. LightningCLI continues with `--ckpt_path` and the last
  file of its ModelCheckpoint.
- **the same, checkpoints within epochs**: with `--checkpoint_every 1`, and a ModelCheckpoint after each step.
- **seeds**: `litlab fit --seeds 2`; **sweep**: two values of one of the module's own keys; **compare**: `litlab
  compare` with the module's own metric. LightningCLI has no such commands.
- **2 processes**: `--trainer.devices 2 --trainer.strategy ddp` on the CPU.
"""
Row = dict[str, dict[str, Cell]]  # the cells by program and column


class Results:
    """A file with the cells so far. Cells of other source code are ignored.

    Args:
        path: The file.
        source: The state of the source code.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source, self._lock = path, source, threading.Lock()
        saved = json.loads(path.read_text()) if path.is_file() else {}
        cells = saved["cells"] if saved.get("source") == source else {}
        self._cells = {key: Cell(**cell) for key, cell in cells.items()}

    def get(self, case: str, program: str, column: str) -> Cell | None:
        return self._cells.get(f"{case} {program} {column}")

    def add(self, case: str, program: str, column: str, cell: Cell) -> None:
        """Save a cell, atomically."""
        with self._lock:
            self._cells[f"{case} {program} {column}"] = cell
            saved = {key: asdict(cell) for key, cell in self._cells.items()}
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps({"source": self._source, "cells": saved}, indent=1))
            part.replace(self._path)

    def clear(self) -> None:
        """Forget all cells."""
        self._cells = {}

    def is_complete(self, cases: Sequence[Case]) -> bool:
        return all(self.get(case.name, p, c) for case in cases for p in ("litlab", "plain") for c in COLUMNS)

    def worse(self, cases: Sequence[Case]) -> list[str]:
        """Return the cells in which litlab is worse than LightningCLI."""
        found = []
        for case in cases:
            for column in COLUMNS:
                cell, plain = (self.get(case.name, program, column) for program in ("litlab", "plain"))
                if cell is None or plain is None or cell.ok:
                    continue
                unexplained = plain.word == NONE and column not in case.reasons
                if unexplained or _rank(cell) < _rank(plain):
                    found.append(f"{case.name} {column}: {cell.word}: {cell.note}")
        return found


def _rank(cell: Cell) -> int:
    return 2 if cell.ok else int(cell.word == OTHER_WEIGHTS)


def markdown(results: Results, cases: Sequence[Case]) -> str:
    """Return the page."""
    notes: dict[str, int] = {}
    header = ["module", *COLUMNS.values()]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for case in cases:
        texts = [_pair(results, case.name, column, notes) for column in COLUMNS]
        lines.append(f"| `{case.name}`: {case.what} | {' | '.join(texts)} |")
    footnotes = [f"{number}. {note}" for note, number in notes.items()]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    made = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {sys.platform}; Python {platform.python_version()}, "
    return "\n".join([INTRODUCTION, f"{made}{versions}.", "", *lines, "", *footnotes, ""])


def _pair(results: Results, case: str, column: str, notes: dict[str, int]) -> str:
    return " / ".join(_text(results.get(case, program, column), notes) for program in ("litlab", "plain"))


def _text(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return "?"
    note = cell.note.replace("|", "/").strip()
    number = f"<sup>{notes.setdefault(note, len(notes) + 1)}</sup>" if note else ""
    return f"{'✓' if cell.ok else cell.word or 'no'}{number}"
