"""Measured runs as CSV files, one for each section of the claims, so that the page can be made without the runs.

A file has one row for each run: label, configuration hash, seed, then facts, then metrics. Numbers are written so that
reading gives them back exactly. A cell is empty for a metric that was not asked for, and ABSENT for one that was asked
for and that the run does not have. Rows of earlier configurations stay.
"""

import csv
import io
from collections.abc import Collection, Iterable
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock, write_atomically
from sweeps.reproduction.row import PACKAGES, Row

ABSENT = "none"
VERSIONS = ("python", *PACKAGES)
FACTS = (
    "label",
    "config_hash",
    "seed",
    "date",
    "seconds",
    "processor",
    "data",
    "data_files",
    "test_size",
    "test_sha256",
)
COLUMNS = (*FACTS, *VERSIONS)  # the others are metrics
Cells = dict[str, str]  # a row of a file, by column


class MeasurementFiles:
    """The CSV files in a folder.

    Args:
        folder: Is created when the first run is added.

    Raises:
        UserError: It is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--measurements {folder}: not a folder")
        self.folder = folder

    def read(self, sections: Iterable[str]) -> list[Row]:
        """Return all rows of the files of these sections. A file that does not exist has none.

        Raises:
            UserError: A file cannot be read, or is not valid.
        """
        return [row for section in sections for row in _read(self._path(section))]

    def add(self, section: str, rows: Collection[Row]) -> None:
        """Add rows to the file of a section; a row of the same label, configuration and seed is replaced.

        The file is replaced in one step, under a lock: no other process loses a row, and no reader sees half of one.

        Raises:
            UserError: The file is not valid, or cannot be written.
        """
        path = self._path(section)
        try:
            with file_lock(path.with_name(f".{path.name}.lock"), remove=True):
                kept = {row.key: row for row in [*_read(path), *rows]}
                write_atomically(path, _format(kept.values()))
        except OSError as error:
            raise UserError(f"--measurements {path}: cannot be written ({error.strerror})") from error

    def _path(self, section: str) -> Path:
        return self.folder / f"{section}.csv"


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise UserError(f"--measurements {path}: there is no column {missing[0]}")
            return [_row(cells, path, reader.line_num) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--measurements {path}: cannot be read ({error})") from error


def _row(cells: Cells, path: Path, line: int) -> Row:
    if None in cells or None in cells.values():  # csv's names for cells without a column, and columns without a cell
        raise UserError(f"--measurements {path}, line {line}: as many cells are expected as there are columns")
    metrics = {key: text for key, text in cells.items() if key not in COLUMNS and text}
    try:
        return Row(
            label=cells["label"],
            config_hash=cells["config_hash"],
            seed=str(int(cells["seed"])),
            date=cells["date"],
            seconds=float(cells["seconds"]),
            versions={name: cells[name] for name in VERSIONS if cells[name]},
            processor=cells["processor"],
            data=cells["data"],
            data_files=cells["data_files"],
            test_size=int(cells["test_size"]) if cells["test_size"] else None,
            test_sha256=cells["test_sha256"],
            metrics={key: float(text) for key, text in metrics.items() if text != ABSENT},
            absent=frozenset(key for key, text in metrics.items() if text == ABSENT),
        )
    except ValueError as error:
        raise UserError(f"--measurements {path}, line {line}: {error}") from error


def _format(rows: Iterable[Row]) -> str:
    """Return the text of a file, with the rows in an order that does not depend on when they were added."""
    ordered = sorted(rows, key=lambda row: (row.label, int(row.seed), row.date, row.config_hash))
    metrics = sorted({name for row in ordered for name in (*row.metrics, *row.absent)})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *metrics], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in ordered)
    return text.getvalue()


def _cells(row: Row) -> Cells:
    facts = {
        "label": row.label,
        "config_hash": row.config_hash,
        "seed": row.seed,
        "date": row.date,
        "seconds": repr(row.seconds),
        "processor": row.processor,
        "data": row.data,
        "data_files": row.data_files,
        "test_size": "" if row.test_size is None else str(row.test_size),
        "test_sha256": row.test_sha256,
    }
    metrics = {name: repr(value) for name, value in row.metrics.items()}
    return {**facts, **row.versions, **metrics, **dict.fromkeys(row.absent, ABSENT)}
