"""How often a test set was looked at, and the intervals that allow for it. Imports nothing heavy.

A look is the first evaluation of a configuration on the test set; its further seeds and folds add none. All looks in
the tracking store count, also those of other experiments and of deleted runs: each may have led to a later choice.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines.comparison.corrected import corrected_interval
from pipelines.comparison.data_sets import test_digest
from pipelines.comparison.intervals import Interval
from pipelines.comparison.row import Row, overlap
from pipelines.runtime.metric_names import bounds_of, is_accuracy
from pipelines.tracking.ledger import Ledger, look_of, read_ledger
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.store import StoredRun


@dataclass(frozen=True)
class Looks:
    """The looks at the test set on which rows are compared.

    Attributes:
        count: Number of configurations that were evaluated on it.
        is_complete: False if there may be more, because a server has more runs than were read.
        numbers: Which look a row was, from 1 on, by the number of the row.
        intervals: The 95 % interval of each row that holds for all looks at once, by the number of the row; None where
            it is unknown.
    """

    count: int
    is_complete: bool
    numbers: Mapping[int, int]
    intervals: Mapping[int, Interval | None]

    @property
    def text(self) -> str:
        """Which look the newest row was: "4th look at this test set"."""
        newest = max(self.numbers.values())
        if newest == self.count and self.is_complete:
            return f"{ordinal(newest)} look at this test set"
        return f"{ordinal(newest)} of {'' if self.is_complete else 'at least '}{self.count} looks at this test set"


def count_looks(rows: Sequence[Row], metric: str, selected: Sequence[StoredRun]) -> Looks | None:
    """Return the looks at the test set of rows on the same data set.

    Args:
        rows: The rows.
        metric: The metric that ranks them.
        selected: All runs of the rows, also those that do not count because a later one repeats their seed.

    Returns:
        None if the metric is not one of a test, the runs have no digest of their test set, or only one configuration
        was evaluated on it.

    Raises:
        UserError: The store cannot be reached.
    """
    runs = [run for row in rows for run in row.runs]
    digests = {test_digest(run) for run in runs} - {""}
    if len(digests) != 1 or not any(metric in test_metrics(run.metrics, run.tags) for run in runs):
        return None
    ledger = read_ledger(runs[0].store, digests.pop())
    looks = {run.run_id: look_of(run) for run in selected}
    by_row = {row.number: list(dict.fromkeys(looks[run_id] for run_id in row.run_ids)) for row in rows}
    same = _same_looks([by_row[row.number] for row in rows if row.configurations == 1])
    places = _places(ledger, same)
    numbers = {
        number: min(found) for number, each in by_row.items() if (found := [*filter(None, map(places.get, each))])
    }
    count = max(places.values(), default=0)
    if count < 2 or not numbers:
        return None
    return Looks(count, ledger.is_complete, numbers, _intervals(rows, metric, count))


def _same_looks(by_row: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return one look for the looks of each row of one configuration.

    Its runs have different hashes if a version of litlab knew more keys than another.
    """
    same: dict[str, str] = {}
    for looks in by_row:
        shared = next((same[look] for look in looks if look in same), looks[0])
        same |= dict.fromkeys(looks, shared)
    return same


def _places(ledger: Ledger, same: Mapping[str, str]) -> dict[str, int]:
    """Return the place of each look in the order of time, from 1 on."""
    first: dict[str, int] = {}
    for look, time in ledger.first_looks.items():
        name = same.get(look, look)
        first[name] = min(time, first.get(name, time))
    order = sorted(first, key=lambda name: (first[name], name))
    places = {name: place for place, name in enumerate(order, 1)}
    return {look: places[same.get(look, look)] for look in ledger.first_looks}


def _intervals(rows: Sequence[Row], metric: str, count: int) -> dict[int, Interval | None]:
    values = {row.number: list(row.values.values()) for row in rows}
    bounds = bounds_of(metric, [value for each in values.values() for value in each])
    is_share = is_accuracy(metric) and bounds == (0, 1)
    examples = _test_examples([run for row in rows for run in row.runs]) if is_share else None

    def interval(row: Row) -> Interval | None:
        return corrected_interval(values[row.number], count, examples, bounds, overlap(row.runs))

    return {row.number: interval(row) for row in rows}


def _test_examples(runs: Sequence[StoredRun]) -> int | None:
    """Return the number of examples in the test set, as the first run tells that recorded it; None if none does."""
    for run in runs:
        for profile in run.profiles:
            with suppress(ValueError):
                described: Any = json.loads(profile)
                sizes = described.get("sizes") if isinstance(described, dict) else None
                if isinstance(sizes, dict) and isinstance(sizes.get("test"), int):
                    return int(sizes["test"]) or None
    return None


def ordinal(number: int) -> str:
    """Return a number as an ordinal: "1st", "2nd", "3rd", "4th", "11th"."""
    last = number % 10 if number % 100 // 10 != 1 else 0
    return f"{number}{('th', 'st', 'nd', 'rd')[last if last < 4 else 0]}"
