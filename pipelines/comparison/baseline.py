"""The row that all others are compared with. Imports nothing heavy."""

import re
from collections.abc import Sequence

from pipelines.comparison.row import Row
from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import EXPERIMENT_KEY

_NUMBER = re.compile(r"\d{1,3}")  # an abbreviated run id has four or more characters
_RUN_ID = re.compile(r"[0-9a-f]{4,32}")


def default_baseline(rows: Sequence[Row]) -> Row:
    """Return the best row that has more than one run, because a single run has no spread; else the best row."""
    return next((row for row in rows if row.summary.n > 1), rows[0])


def find_baseline(rows: Sequence[Row], baseline: str) -> Row:
    """Return the row that a user names.

    Args:
        rows: The rows in the order of their numbers.
        baseline: A row's number, or the id, the beginning of the id, the name or the experiment of its runs.

    Raises:
        UserError: No row or several rows are meant.
    """
    if _NUMBER.fullmatch(baseline):
        if not 1 <= int(baseline) <= len(rows):
            raise UserError(f"--baseline {baseline}: the rows are 1 to {len(rows)}")
        return rows[int(baseline) - 1]
    for found in (_by_id(rows, baseline), _by_name(rows, baseline)):
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(str(row.number) for row in found[:10])
            raise UserError(f"--baseline {baseline}: rows {numbers} have such a run; give the row's number")
    raise UserError(
        f"--baseline {baseline}: no row has this run; give a row's number (1 to {len(rows)}) or a run of it"
    )


def _by_id(rows: Sequence[Row], text: str) -> list[Row]:
    if not _RUN_ID.fullmatch(text):
        return []
    return [row for row in rows if any(run_id.startswith(text) for run_id in row.run_ids)]


def _by_name(rows: Sequence[Row], text: str) -> list[Row]:
    named = [row for row in rows if any(run.name == text for run in row.runs)]
    return named or [row for row in rows if row.value(EXPERIMENT_KEY) == text]
