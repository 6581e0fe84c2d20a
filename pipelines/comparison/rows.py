"""Group finished runs into rows, summarise each row over its seeds, and rank the rows."""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pipelines.comparison.equal_runs import Configuration, EqualRuns, differ
from pipelines.comparison.intervals import Difference, Summary, paired_difference, summarize
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import Mode, mode_of, split_of, without_split
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.query import RunSelection
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY, DATA_HASH_TAG, EXPERIMENT_KEY, MODE_TAG, MONITOR_TAG, SELECTED

METRICS = ("test/acc", "test/loss", "selected/val/acc", "selected/val/loss")  # candidates, if no metric is given
MAX_COLUMNS = 12  # keys that tables show
MAX_VALUE = 60  # characters of a value that tables show
MAX_NUMBER = 1e150  # the square of a larger one overflows; MLflow stores infinity as 1.8e308
CONFIGURATIONS = "configurations"  # column with the number of configurations in a row


@dataclass
class Row:
    """All runs of one configuration, or of one combination of values of the `by` keys.

    Attributes:
        configuration: The keys whose values are the same in all its runs. A run that lacks one has it at its default.
        runs: The runs that count: of runs that repeat a seed, the latest.
        values: The metric of each run, by its seed and, with `by`, its other keys.
        summary: Mean, standard deviation and interval of the values.
        configurations: Number of configurations; 1 without `by`.
        repeats: Number of runs that do not count, because a later run repeats their seed.
        recorded: What the runs recorded of their configurations, each once.
        difference: Difference to the best row; None for the best row.
    """

    configuration: dict[str, str]
    runs: list[StoredRun]
    values: dict[Hashable, float]
    summary: Summary
    configurations: int = 1
    repeats: int = 0
    recorded: Sequence[Configuration] = ()
    difference: Difference | None = None

    def value(self, column: str) -> str:
        """Return the row's value of a column; "" if the key is not set."""
        return str(self.configurations) if column == CONFIGURATIONS else self.configuration.get(column, "")

    def mean(self, metric: str) -> float | None:
        """Return the mean of another metric over the runs that have it, such as fit_seconds or parameters."""
        values = [run.metrics[metric] for run in self.runs if _is_finite(run.metrics.get(metric))]
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Comparison:
    """Rows of finished runs, ranked by a metric.

    Attributes:
        selection: The runs that were selected.
        metric: The metric that ranks the rows.
        lower_is_better: Whether lower values of the metric are better.
        rows: The rows, best first.
        columns: The smallest set of keys that distinguishes the rows.
        differing: All keys in which rows differ.
        notes: Caveats for the reader, such as runs that were left out.
    """

    selection: RunSelection
    metric: str
    lower_is_better: bool
    rows: list[Row]
    columns: list[str]
    differing: list[str]
    notes: list[str]


def group_and_rank(
    selection: RunSelection, metric: str | None = None, by: Sequence[str] = (), mode: Mode | None = None
) -> Comparison:
    """Group runs into rows and compare each row with the best one.

    Args:
        selection: The runs.
        metric: Metric to rank by; None takes the metric of the selected study, or else `default_metric`.
        by: Keys whose values make the rows; if empty, each configuration is a row.
        mode: Whether lower ("min") or higher ("max") values are better; None takes the direction of the selected study
            for its metric, or that by which the runs selected their weights, or else what the metric's name tells.

    Raises:
        UserError: No run has the metric, or a key is unknown.
    """
    metric = metric or selection.metric or default_metric(selection.runs)
    measured = [run for run in selection.runs if _is_finite(run.metrics.get(metric))]
    if not measured:
        raise UserError(_no_metric(metric, selection))
    keys = [_resolve_key(name, measured) for name in by]
    rows = _group(measured, metric, keys)
    searched = selection.direction if metric == selection.metric else None
    by_study = {"minimize": "min", "maximize": "max"}.get(searched or "")
    lower = (mode or by_study or _recorded_mode(metric, measured) or mode_of(metric)) == "min"
    rows.sort(key=lambda row: row.summary.mean if lower else -row.summary.mean)
    for row in rows[1:]:
        row.difference = paired_difference(row.values, rows[0].values)
    differing = keys or _differing(rows)
    columns = keys or _most_common(_columns(rows, differing), rows)
    if any(row.configurations > 1 for row in rows):
        columns = [*columns, CONFIGURATIONS]
    notes = [*selection.notes, *_notes(len(selection.runs) - len(measured), rows, metric, keys)]
    if not keys and len(shown := _columns(rows, differing)) > MAX_COLUMNS:
        notes.append(
            f"{len(shown)} keys differ, {MAX_COLUMNS} are shown; --format json or csv has all, --by KEY chooses"
        )
    return Comparison(selection, metric, lower, rows, columns, differing, notes)


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


def _recorded_mode(metric: str, runs: Sequence[StoredRun]) -> str | None:
    """Return the mode that selected the runs' weights, if it was by this metric, or by this on the validation set."""
    name = without_split(metric.removeprefix(f"{SELECTED}/"))
    modes = {run.tags.get(MODE_TAG) for run in runs if without_split(run.tags.get(MONITOR_TAG, "")) == name}
    return modes.pop() if len(modes) == 1 else None


def _preference(metric: str) -> int:
    """Return 2 for an accuracy, 1 for a loss, 0 for any other metric."""
    words = re.split(r"[^a-z]+", metric.lower())
    return 2 if {"acc", "accuracy"} & set(words) else int("loss" in words)


def format_value(value: str) -> str:
    """Shorten a value for display: a class without its module, a long number with four digits, a long text in part."""
    if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", value):
        return f"{float(value):.4g}"
    short = value.rpartition(".")[2] if re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value) else value
    return short if len(short) <= MAX_VALUE else f"{short[: MAX_VALUE - 20]} ... {short[-15:]}"


def _group(runs: Sequence[StoredRun], metric: str, keys: Sequence[str]) -> list[Row]:
    equal = EqualRuns(runs)
    numbers = {} if keys else equal.groups()
    groups: dict[Hashable, list[StoredRun]] = {}
    for run in runs:
        row = tuple(run.configuration.get(key, "") for key in keys) if keys else numbers[run.run_id]
        groups.setdefault(row, []).append(run)
    others = _other_keys(list(groups.values()), keys, equal) if keys else {}
    rows = []
    for group in groups.values():
        latest = {(others.get(run.run_id), run.seed): run for run in sorted(group, key=lambda run: run.started)}
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


def _differing(rows: Sequence[Row]) -> list[str]:
    """Return the keys in which rows differ; the digest of the data only if nothing else distinguishes two rows."""
    keys = dict.fromkeys(key for row in rows for key in row.configuration if key != DATA_HASH_KEY)
    differing = [key for key in keys if _differs(key, rows)]
    counts = Counter(tuple(row.value(key) for key in differing) for row in rows)
    return [*differing, DATA_HASH_KEY] if any(count > 1 for count in counts.values()) else differing


def _differs(key: str, rows: Sequence[Row]) -> bool:
    """Return whether rows differ in a key. One that lacks the key is like those that have it at its default."""
    recorded = [configuration for row in rows for configuration in row.recorded]
    return len({row.value(key) for row in rows}) > 1 and differ(recorded, key)


def _most_common(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return at most MAX_COLUMNS columns, those that most rows set, in the same order."""
    counts = {key: sum(bool(row.value(key)) for row in rows) for key in columns}
    chosen = sorted(columns, key=lambda key: -counts[key])[:MAX_COLUMNS]
    return [key for key in columns if key in chosen]


def _is_finite(value: float | None) -> bool:
    return value is not None and abs(value) < MAX_NUMBER


def _columns(rows: Sequence[Row], differing: Sequence[str]) -> list[str]:
    """Drop the keys that are constant within each experiment: the experiment's name already determines them."""
    if EXPERIMENT_KEY not in differing:
        return list(differing)
    by_experiment: dict[str, list[Row]] = {}
    for row in rows:
        by_experiment.setdefault(row.value(EXPERIMENT_KEY), []).append(row)
    groups = by_experiment.values()
    varying = [key for key in differing if any(_differs(key, group) for group in groups)]
    return [EXPERIMENT_KEY, *(key for key in varying if key != EXPERIMENT_KEY)]


def _no_metric(metric: str, selection: RunSelection) -> str:
    if not selection.runs:
        where = f" in {', '.join(selection.names)}" if selection.names else ""
        return f"there is no finished run{where}{f' with {selection.filter_string}' if selection.filter_string else ''}"
    counts = Counter(key for run in selection.runs for key in run.metrics)
    suggestions = get_close_matches(metric, counts, n=3) or [key for key, _ in counts.most_common(8)]
    known = ", ".join(suggestions) or "none"
    return f"none of {len(selection.runs)} finished runs has a finite {metric}; available metrics: {known}"


def _resolve_key(name: str, runs: Sequence[StoredRun]) -> str:
    """Find a key of the configuration, given in full or by its last parts."""
    known = sorted({key for run in runs for key in run.configuration} - {DATA_HASH_KEY})
    if name in known:
        return name
    matches = [key for key in known if key.endswith(f".{name}")]
    if len(matches) == 1:
        return matches[0]
    suggestions = matches or get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
    raise UserError(f"--by {name}: no run has such a key{hint}")


def _notes(unmeasured: int, rows: Sequence[Row], metric: str, keys: Sequence[str]) -> list[str]:
    """Return what was left out, and what may explain differences between the rows besides the `by` keys."""
    notes = []
    if unmeasured:
        notes.append(f"{_runs_are(unmeasured)} left out: finished, but without a finite {metric}")
    if repeats := sum(row.repeats for row in rows):
        notes.append(f"{_runs_are(repeats)} left out: a later run has the same configuration and seed")
    others = [key for key in _differing(rows) if key not in (*keys, DATA_HASH_KEY)] if keys else []
    if others:
        names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        notes.append(f"the rows differ in more than {', '.join(keys)}: also in {names}")
    split = split_of(metric) or ""
    digests = {run.tags.get(f"{DATA_HASH_TAG}.{split}") for row in rows for run in row.runs} - {None}
    if len(digests) > 1:
        notes.append(f"{metric} was measured on {len(digests)} different {split} sets, which may explain differences")
    return notes


def _runs_are(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"
