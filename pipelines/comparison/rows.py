"""Group finished runs into rows, summarise each row over its seeds, and rank the rows."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from pipelines.comparison.baseline import default_baseline, find_baseline
from pipelines.comparison.columns import MAX_COLUMNS, differing_keys, most_common, telling_columns
from pipelines.comparison.data_sets import DATA_KEY, by_data_set
from pipelines.comparison.equal_runs import EqualRuns
from pipelines.comparison.intervals import paired_difference, summarize
from pipelines.comparison.looks import Looks
from pipelines.comparison.row import CONFIGURATIONS, Row, is_finite, overlap
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import Mode, bounds_of, mode_of, split_of, without_split
from pipelines.runtime.text import counted
from pipelines.tracking.folds import fold_of
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.query import RunSelection
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY, DATA_HASH_TAG, MODE_TAG, MONITOR_TAG, SELECTED

RUNS_ARE = "run is", "runs are"
METRICS = ("test/acc", "test/loss", "selected/val/acc", "selected/val/loss")  # candidates, if no metric is given


@dataclass(frozen=True)
class Comparison:
    """Rows of finished runs, ranked by a metric. Rows on different data sets are not ranked with one another.

    Attributes:
        selection: The runs that were selected.
        metric: The metric that ranks the rows.
        lower_is_better: Whether lower values of the metric are better.
        rows: The rows, best first; those on the same data set follow one another.
        columns: The smallest set of keys that distinguishes the rows.
        differing: All keys in which rows differ.
        notes: Caveats for the reader, such as runs that were left out.
        parts: For several data sets, the comparison of the rows on each, by the name of the data set.
        looks: The looks at the test set, of a comparison by a test metric on one data set; None if there are less than
            two, or they are unknown.
    """

    selection: RunSelection
    metric: str
    lower_is_better: bool
    rows: list[Row]
    columns: list[str]
    differing: list[str]
    notes: list[str]
    parts: Mapping[str, "Comparison"] = field(default_factory=dict)
    looks: Looks | None = None

    def by_data_set(self) -> "dict[str, Comparison]":
        """Return the comparison for each data set, by its name; "" if there is only one."""
        return dict(self.parts) or {"": self}


def group_and_rank(
    selection: RunSelection,
    metric: str | None = None,
    by: Sequence[str] = (),
    mode: Mode | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Group runs into rows and compare each row with the baseline.

    Args:
        selection: The runs.
        metric: Metric to rank by; None takes the metric of the selected study, or else `default_metric`.
        by: Keys whose values make the rows; if empty, each configuration is a row.
        mode: Whether lower ("min") or higher ("max") values are better; None takes the direction of the selected study
            for its metric, or that by which the runs selected their weights, or else what the metric's name tells.
        baseline: The row that the others are compared with, see `find_baseline`.

    Raises:
        UserError: No run has the metric, or a key or the baseline is unknown.
    """
    metric = metric or selection.metric or default_metric(selection.runs)
    measured = [run for run in selection.runs if is_finite(run.metrics.get(metric))]
    if not measured:
        raise UserError(_no_metric(metric, selection))
    keys = [_resolve_key(name, measured) for name in by]
    rows = _group(measured, metric, keys)
    searched = selection.direction if metric == selection.metric else None
    by_study = {"minimize": "min", "maximize": "max"}.get(searched or "")
    lower = (mode or by_study or recorded_mode(metric, measured) or mode_of(metric)) == "min"
    rows.sort(key=lambda row: row.summary.mean if lower else -row.summary.mean)
    sets = by_data_set(rows)
    rows = [row for part in sets.values() for row in part]
    for number, row in enumerate(rows, 1):
        row.number = number
    chosen = None if baseline is None else find_baseline(rows, baseline)
    for part in sets.values():
        _compare_rows(part, metric, chosen)
    notes = [*selection.notes, *_notes(len(selection.runs) - len(measured), rows, sets, metric, keys)]

    def comparison(part: list[Row]) -> Comparison:
        differing = keys or differing_keys(part)
        telling = keys or telling_columns(part, differing)
        if not keys and len(telling) > MAX_COLUMNS:
            shown = f"{MAX_COLUMNS} are shown; --format json or csv has all, --by KEY chooses"
            notes.append(f"{len(telling)} keys differ, {shown}")
        columns = keys or most_common(telling, part)
        pooled = [CONFIGURATIONS] if any(row.configurations > 1 for row in part) else []
        return Comparison(selection, metric, lower, part, [*columns, *pooled], differing, notes)

    if len(sets) == 1:
        return comparison(rows)
    parts = {name: comparison(part) for name, part in sets.items()}
    return replace(comparison(rows), parts=parts)


def _compare_rows(rows: Sequence[Row], metric: str, chosen: Row | None) -> None:
    """Set the ranks and differences of the rows on one data set.

    Args:
        rows: The rows, best first.
        metric: The metric, which tells the bounds of the intervals.
        chosen: The baseline that the user chose, perhaps a row on another data set.
    """
    baseline = chosen if chosen is not None and any(row is chosen for row in rows) else default_baseline(rows)
    bounds = bounds_of(metric, [value for row in rows for value in row.values.values()])
    for rank, row in enumerate(rows, 1):
        row.rank = rank
        shared = max(overlap(row.runs), overlap(baseline.runs))
        row.summary = summarize(list(row.values.values()), bounds, overlap(row.runs))
        row.baseline = None if row is baseline else baseline
        row.difference = None if row is baseline else paired_difference(row.values, baseline.values, bounds, shared)


def default_metric(runs: Sequence[StoredRun]) -> str:
    """Return the metric of `METRICS` that most runs have; if it is none of a test, and as many have one, a test metric.

    If no run has one of `METRICS`, it is a test metric of most runs, or else a selected one. Of those that equally many
    runs have, an accuracy comes before a loss before any other.
    """
    counts = Counter(name for run in runs for name in METRICS if name in run.metrics)
    best = max(METRICS, key=lambda name: counts[name])  # of equal counts, the first
    tested = Counter(name for run in runs for name in test_metrics(run.metrics, run.tags))
    if counts and (best in tested or max(tested.values(), default=0) < counts[best]):
        return best
    selected = Counter(name for run in runs for name in run.metrics if name.startswith(f"{SELECTED}/"))
    validated = Counter({name: count for name, count in selected.items() if split_of(name) == "val"})
    for candidates in (tested, validated, selected):
        if candidates:
            return max(sorted(candidates), key=lambda name: (candidates[name], _preference(name)))
    return METRICS[0]


def recorded_mode(metric: str, runs: Sequence[StoredRun]) -> str | None:
    """Return the mode that selected the runs' weights, if it was by this metric, or by this on the validation set."""
    name = without_split(metric.removeprefix(f"{SELECTED}/"))
    modes = {run.tags.get(MODE_TAG) for run in runs if without_split(run.tags.get(MONITOR_TAG, "")) == name}
    return modes.pop() if len(modes) == 1 else None


def _preference(metric: str) -> int:
    """Return 2 for an accuracy, 1 for a loss, 0 for any other metric."""
    words = re.split(r"[^a-z]+", metric.lower())
    return 2 if {"acc", "accuracy"} & set(words) else int("loss" in words)


def _group(runs: Sequence[StoredRun], metric: str, keys: Sequence[str]) -> list[Row]:
    equal = EqualRuns(runs)
    numbers = {} if keys else equal.groups()
    groups: dict[Hashable, list[StoredRun]] = {}
    for run in runs:
        pooled = (*keys, DATA_KEY)  # a row is on one data set
        row = tuple(run.configuration.get(key, "") for key in pooled) if keys else numbers[run.run_id]
        groups.setdefault(row, []).append(run)
    others = _other_keys(list(groups.values()), keys, equal) if keys else {}
    rows = []
    for group in groups.values():
        latest = {(others.get(run.run_id), run.repeat): run for run in sorted(group, key=lambda run: run.started)}
        common, recorded = equal.common(list(latest.values()))
        rows.append(
            Row(
                configuration=dict(common),
                runs=list(latest.values()),
                values={key: float(run.metrics[metric]) for key, run in latest.items()},
                summary=summarize([float(run.metrics[metric]) for run in latest.values()]),
                configurations=len({number for number, _ in latest}),
                repeats=len(group) - len(latest),
                recorded=recorded,
                run_ids=[run.run_id for run in group],
            )
        )
    return rows


def _other_keys(groups: Sequence[Sequence[StoredRun]], keys: Sequence[str], equal: EqualRuns) -> Mapping[str, int]:
    """Return a number for what each run sets beside the `by` keys, by run id; empty if no row holds more than one.

    The digest of the data may follow from a key: it is included only if runs of some row differ in nothing else.
    """
    full, without_data = equal.groups(keys), equal.groups([*keys, DATA_HASH_KEY])

    def counts(numbers: Mapping[str, int]) -> list[int]:
        return [len({numbers[run.run_id] for run in group}) for group in groups]

    chosen = full if any(a > b for a, b in zip(counts(full), counts(without_data), strict=True)) else without_data
    return chosen if max(counts(chosen)) > 1 else {}


def _no_metric(metric: str, selection: RunSelection) -> str:
    if not selection.runs:
        where = f" in {', '.join(selection.names)}" if selection.names else ""
        return f"there is no finished run{where}{f' with {selection.filter_string}' if selection.filter_string else ''}"
    counts = Counter(key for run in selection.runs for key in run.metrics)
    suggestions = get_close_matches(metric, counts, n=3) or [key for key, _ in counts.most_common(8)]
    known = ", ".join(suggestions) or "none"
    return f"none of {len(selection.runs)} finished runs has a finite {metric}; available metrics: {known}"


def _resolve_key(name: str, runs: Sequence[StoredRun]) -> str:
    """Find a key of the configuration, given in full or by its last parts; a class also as `model.class_path`."""
    name = name.removesuffix(".class_path")
    known = sorted({key for run in runs for key in run.configuration} - {DATA_HASH_KEY})
    if name in known:
        return name
    matches = [key for key in known if key.endswith(f".{name}")]
    if len(matches) == 1:
        return matches[0]
    suggestions = matches or get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
    raise UserError(f"--by {name}: no run has such a key{hint}")


def _notes(
    unmeasured: int, rows: Sequence[Row], sets: Mapping[str, Sequence[Row]], metric: str, keys: Sequence[str]
) -> list[str]:
    """Return what was left out, and what may explain differences between the rows besides the `by` keys."""
    notes = []
    if unmeasured:
        notes.append(f"{counted(unmeasured, *RUNS_ARE)} left out: finished, but without a finite {metric}")
    if repeats := sum(row.repeats for row in rows):
        notes.append(f"{counted(repeats, *RUNS_ARE)} left out: a later run has the same configuration and seed")
    others = [key for key in differing_keys(rows) if key not in (*keys, DATA_HASH_KEY)] if keys else []
    if others:
        names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        notes.append(f"the rows differ in more than {', '.join(keys)}: also in {names}")
    if len(sets) > 1:
        notes.append(f"the runs are on {len(sets)} data sets, which are ranked separately: {', '.join(sets)}")
        return notes
    split = split_of(metric) or ""
    runs = [run for row in rows for run in row.runs]
    whole = [run for run in runs if split == "test" or fold_of(run.params) is None]
    digests = {run.tags.get(f"{DATA_HASH_TAG}.{split}") for run in whole} - {None}
    if any(fold_of(run.params) is not None for run in runs):
        notes.append("runs of folds share training examples: their intervals are wider for it (docs/COMPARE.md)")
    if len(digests) > 1:
        notes.append(f"{metric} was measured on {len(digests)} different {split} sets, which may explain differences")
    return notes
