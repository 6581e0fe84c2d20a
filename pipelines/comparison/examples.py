"""Compare two runs example by example: what one classifies correctly and the other does not. Imports nothing heavy.

Shapes: N test examples, in the order of the data.
"""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.comparison.formatting import markdown_table
from pipelines.comparison.latex import latex_table
from pipelines.evaluation.predictions import Predictions, read_predictions
from pipelines.runtime.errors import UserError
from pipelines.tracking.existing import existing_store
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import StoredRun

LEVEL = 0.05  # a smaller p-value is called a difference


@dataclass(frozen=True)
class ExampleComparison:
    """Two runs on the same test set.

    Attributes:
        runs: The runs.
        predictions: Their predictions.
    """

    runs: tuple[StoredRun, StoredRun]
    predictions: tuple[Predictions, Predictions]

    def where(self, first: bool, second: bool) -> NDArray[np.int64]:
        """Return the indices of the examples that the runs classify correctly or not, in the order of the data."""
        one_N, other_N = (predictions.right_N for predictions in self.predictions)
        return np.flatnonzero((one_N == first) & (other_N == second))

    def count(self, first: bool, second: bool) -> int:
        return len(self.where(first, second))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of McNemar's exact test, see `mcnemar`."""
        return mcnemar(self.count(True, False), self.count(False, True))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Q. McNemar, Psychometrika 12, 1947).

    If both are equally good, each example that only one of them classifies correctly is as likely to be one's as the
    other's: their numbers have a binomial distribution with probability 1/2.
    """
    from scipy.special import bdtr

    fewer, both = min(only_first, only_second), only_first + only_second
    return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))


def compare_examples(one: str, other: str, *, tracking_uri: str | None = None) -> ExampleComparison:
    """Compare the predictions that two runs kept of their test.

    Args:
        one: A run, as `find_run` takes it.
        other: Another one.
        tracking_uri: By default the project's mlflow.db.

    Raises:
        UserError: There is no such run, one has no predictions, or the test sets differ.
    """
    store = existing_store(tracking_uri)
    runs = find_run(store, one), find_run(store, other)
    first, second = (read_predictions(run) for run in runs)
    if first.digest and second.digest and first.digest != second.digest:
        raise UserError(f"{_names(runs)} were tested on different test sets: SHA-256 {_short(first, second)}")
    if len(first.targets_N) != len(second.targets_N) or first.targets_digest != second.targets_digest:
        counts = f"{len(first.targets_N):,} and {len(second.targets_N):,} examples"
        raise UserError(f"{_names(runs)} were tested on different examples, or in another order: {counts}")
    return ExampleComparison(runs, (first, second))


def _names(runs: tuple[StoredRun, StoredRun]) -> str:
    return f"runs {runs[0].run_id} and {runs[1].run_id}"


def _short(first: Predictions, second: Predictions) -> str:
    return f"{first.digest[:12]} and {second.digest[:12]}"


def contingency_table(compared: ExampleComparison) -> list[list[str]]:
    """Return the cells of a header and of two rows: how many examples each run classifies correctly."""
    header = ["", "B right", "B wrong"]
    rows = [(f"A {word}", first) for word, first in (("right", True), ("wrong", False))]
    return [
        header,
        *([name, *(f"{compared.count(first, second):,}" for second in (True, False))] for name, first in rows),
    ]


def conclusion(compared: ExampleComparison) -> str:
    """Return the result of the test in a sentence."""
    only_a, only_b, p = compared.count(True, False), compared.count(False, True), compared.p_value
    verdict = "the difference may be chance" if p >= LEVEL else f"{'A' if only_a > only_b else 'B'} is better"
    counts = f"{only_a:,} examples only A classifies correctly, {only_b:,} only B"
    return f"{counts}; McNemar's exact test: p = {p:.3g}, {verdict}"


def records(compared: ExampleComparison) -> list[dict[str, Any]]:
    """Return one record for each example that only one run classifies correctly, in the order of the data."""
    first, second = compared.predictions
    indices = sorted([*compared.where(True, False).tolist(), *compared.where(False, True).tolist()])
    return [
        {
            "index": index,
            "target": first.name(int(first.targets_N[index])),
            "right": "A" if first.right_N[index] else "B",
            **_prediction("a", first, index),
            **_prediction("b", second, index),
        }
        for index in indices
    ]


def _prediction(name: str, predictions: Predictions, index: int) -> dict[str, Any]:
    probability = float(predictions.probabilities_N[index])
    return {
        name: predictions.name(int(predictions.predicted_N[index])),
        f"{name}_probability": None if np.isnan(probability) else round(probability, 6),
    }


def as_json(compared: ExampleComparison) -> str:
    content = {
        "runs": {"A": compared.runs[0].run_id, "B": compared.runs[1].run_id},
        "both_right": compared.count(True, True),
        "only_a_right": compared.count(True, False),
        "only_b_right": compared.count(False, True),
        "both_wrong": compared.count(False, False),
        "p_value": compared.p_value,
        "examples": records(compared),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(compared: ExampleComparison) -> str:
    """Return one line for each example that only one run classifies correctly."""
    names = ("index", "target", "right", "a", "a_probability", "b", "b_probability")
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(compared))
    return text.getvalue()


def legend(compared: ExampleComparison) -> list[str]:
    """Return which run is A and which is B, with their accuracies."""
    named = zip("AB", compared.runs, compared.predictions, strict=True)
    return [f"{label}: run {run.run_id} {run.name}, accuracy {one.right_N.mean():.4f}" for label, run, one in named]


def as_markdown(compared: ExampleComparison) -> str:
    table = markdown_table(contingency_table(compared), padded=False)
    return "\n\n".join(["\n".join(legend(compared)), table, conclusion(compared)]) + "\n"


def as_latex(compared: ExampleComparison) -> str:
    return latex_table(contingency_table(compared), (1, 2), [*legend(compared), conclusion(compared)])


FORMATS = {"json": as_json, "csv": as_csv, "md": as_markdown, "latex": as_latex}
