"""The pairs of runs of a decision: the metric that is compared, and its values. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.comparison.row import is_finite, overlap
from pipelines.comparison.rows import recorded_mode
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import list_metrics, mode_of
from pipelines.tracking.ledger import TEST_DIGEST_TAG, Ledger, read_ledger
from pipelines.tracking.measured import selected_metric, test_metrics
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED
from sweeps.decide.rule import Look, look

Runs = Sequence[StoredRun]


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        metric: Name of the metric in the runs, such as "selected/val/acc".
        lower_is_better: Whether lower values are better.
        is_test: Whether it was measured on the test set.
    """

    metric: str
    lower_is_better: bool
    is_test: bool


def find_measure(metric: str | None, ours: Runs, theirs: Runs) -> Measure:
    """Return what is compared, by default the metric that selected the epoch of our runs.

    Args:
        metric: As given: `val/acc` is its value at the selected epoch.
        ours: Runs of A.
        theirs: Runs of B.

    Raises:
        UserError: Not all runs have the metric.
    """
    runs = [*ours, *theirs]
    shared = set.intersection(*(set(run.metrics) for run in runs))
    wanted = metric or selected_metric(ours[0].metrics, ours[0].tags) or ""
    name = next((each for each in (f"{SELECTED}/{wanted}", wanted) if each in shared), None)
    if name is None:
        tested = test_metrics(ours[0].metrics, ours[0].tags)
        prefix = f"{SELECTED}/"
        usual = [each.removeprefix(prefix) for each in shared if each.startswith(prefix) or each in tested]
        raise UserError(f"--metric {wanted}: the runs have {list_metrics(usual or shared, wanted)}")
    lower = (recorded_mode(name, runs) or mode_of(name)) == "min"
    return Measure(name, lower, name in test_metrics(ours[0].metrics, ours[0].tags))


def look_at(measure: Measure, ours: Runs, theirs: Runs, margin: float, level: float) -> Look:
    """Return what the pairs of runs tell; see `rule.look`.

    Raises:
        UserError: A run has no finite value.
    """
    import numpy as np

    values = [np.array([_value(run, measure.metric) for run in runs]) for runs in (ours, theirs)]
    same = all(_agree(one, other) for one, other in zip(ours, theirs, strict=True))
    shared = max(overlap(ours), overlap(theirs))
    return look(values[0], values[1], margin, level, same=same, overlap=shared)


def ledger_of(measure: Measure, runs: Runs) -> Ledger | None:
    """Return who looked at the test set of runs; None if the metric is not one of a test, or it has no digest.

    Raises:
        UserError: The tracking store cannot be reached.
    """
    digest = runs[0].tags.get(TEST_DIGEST_TAG) if runs and measure.is_test else None
    return read_ledger(runs[0].store, digest) if digest else None


def _value(run: StoredRun, metric: str) -> float:
    value = run.metrics.get(metric)
    if value is None or not is_finite(value):
        raise UserError(f"run {run.run_id} ({run.experiment}, seed {run.seed}) has no finite {metric}")
    return float(value)


def _agree(one: StoredRun, other: StoredRun) -> bool:
    """Return whether two runs measured the same at their selected epochs and in their tests."""
    measured = [
        {key: value for key, value in run.metrics.items() if key.startswith(f"{SELECTED}/")}
        | test_metrics(run.metrics, run.tags)
        for run in (one, other)
    ]
    return measured[0] == measured[1]
