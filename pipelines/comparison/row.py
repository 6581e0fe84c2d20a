"""A row of a comparison: the runs of one configuration, and what they measured. Imports nothing heavy."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pipelines.comparison.equal_runs import Configuration
from pipelines.comparison.intervals import Difference, Summary
from pipelines.tracking.folds import fold_of
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import FOLDS_PARAM

CONFIGURATIONS = "configurations"  # column with the number of configurations in a row
MAX_NUMBER = 1e150  # the square of a larger one overflows; MLflow stores infinity as 1.8e308


@dataclass
class Row:
    """All runs of one configuration, or of one combination of values of the `by` keys.

    Attributes:
        configuration: The keys whose values are the same in all its runs. A run that lacks one has it at its default.
        runs: The runs that count: of runs that repeat a seed (and fold), the latest.
        values: The metric of each run, by its seed (and fold) and, with `by`, its other keys.
        summary: Mean, standard deviation and interval of the values.
        configurations: Number of configurations; 1 without `by`.
        repeats: Number of runs that do not count, because a later run repeats their seed.
        recorded: What the runs recorded of their configurations, each once.
        run_ids: Ids of all its runs, including those that do not count.
        number: Number of the row in a comparison, from 1 on.
        rank: Its place among the rows on the same data set, from 1 on.
        baseline: The row that it is compared with; None for the baseline itself.
        difference: Difference to the baseline; None for the baseline itself.
    """

    configuration: dict[str, str]
    runs: list[StoredRun]
    values: dict[Hashable, float]
    summary: Summary
    configurations: int = 1
    repeats: int = 0
    recorded: Sequence[Configuration] = ()
    run_ids: Sequence[str] = ()
    number: int = 1
    rank: int = 1
    baseline: "Row | None" = None
    difference: Difference | None = None

    def value(self, column: str) -> str:
        """Return the row's value of a column; "" if the key is not set."""
        return str(self.configurations) if column == CONFIGURATIONS else self.configuration.get(column, "")

    def mean(self, metric: str) -> float | None:
        """Return the mean of another metric over the runs that have it, such as fit_seconds or parameters."""
        values = [run.metrics[metric] for run in self.runs if is_finite(run.metrics.get(metric))]
        return math.fsum(values) / len(values) if values else None


def overlap(runs: Sequence[StoredRun]) -> float:
    """Return 1 / (K - 1) for runs of K folds, which share training examples; 0 for others. See intervals.py."""
    folds = [int(run.params[FOLDS_PARAM]) for run in runs if fold_of(run.params) is not None]
    return 1 / (min(folds) - 1) if folds else 0.0


def is_finite(value: float | None) -> bool:
    """Return whether a value is a number that can be averaged."""
    return value is not None and abs(value) < MAX_NUMBER
