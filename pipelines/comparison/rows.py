"""Runs as rows that can be compared: gathered by configuration, averaged over seeds, set beside the best."""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pipelines.comparison.intervals import Difference, Summary, paired_difference, summarize
from pipelines.runtime.errors import UserError
from pipelines.tracking.query import RunSelection
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY, EXPERIMENT_KEY

METRICS = ("test/acc", "test/loss", "selected/val/acc", "selected/val/loss")  # compared by, if nothing is asked for
CONFIGURATIONS = "configurations"  # the column that says how many a row holds
_LOWER = re.compile(r"(^|[/_.])(loss|error|mse|mae|rmse|nll|seconds|parameters|perplexity|dead|changed)")


@dataclass
class Row:
    """All runs of one configuration, or of one value of the keys that rows are made by.

    Attributes:
        configuration: What all its runs have alike.
        runs: Those that count: of runs that repeat a seed, the latest.
        values: The metric of each, by what tells it from the row's other runs: the seed, and perhaps other keys.
        summary: Of the values.
        configurations: How many are gathered here; 1 unless rows are made by some keys only.
        repeats: How many runs do not count, because a later one repeats their seed.
        difference: To the best row; None for that row itself.
    """

    configuration: dict[str, str]
    runs: list[StoredRun]
    values: dict[Hashable, float]
    summary: Summary
    configurations: int = 1
    repeats: int = 0
    difference: Difference | None = None

    def label(self, column: str) -> str:
        """What the row has in a column; "" if the key is not set there."""
        return str(self.configurations) if column == CONFIGURATIONS else self.configuration.get(column, "")

    def mean(self, metric: str) -> float | None:
        """The mean of another metric, over the runs that have it, such as fit_seconds, parameters, selected_epoch."""
        values = [run.metrics[metric] for run in self.runs if math.isfinite(run.metrics.get(metric, math.nan))]
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Comparison:
    """Rows, the best first.

    Attributes:
        selection: The runs that were asked for.
        metric: What the rows are compared by.
        lower_is_better: Which end of it is the good one.
        rows: The best first.
        columns: The keys that tell the rows from one another, as few as will do.
        differing: All keys in which rows differ.
        notes: What a person should know, such as runs that were left out.
    """

    selection: RunSelection
    metric: str
    lower_is_better: bool
    rows: list[Row]
    columns: list[str]
    differing: list[str]
    notes: list[str]


def group_and_rank(selection: RunSelection, metric: str | None = None, by: Sequence[str] = ()) -> Comparison:
    """Gather runs in rows, and set each beside the best one.

    Args:
        selection: The runs.
        metric: What to compare by; None takes what a study was searched by, or else the first of `METRICS` there is.
        by: Keys whose values make the rows; none: all of them, so that each configuration is a row.

    Raises:
        UserError: No run has the metric, or a key is unknown.
    """
    metric = metric or selection.metric or _usual(selection.runs)
    measured = [run for run in selection.runs if math.isfinite(run.metrics.get(metric, math.nan))]
    if not measured:
        raise UserError(_no_metric(metric, selection))
    keys = [_key(name, measured) for name in by]
    rows = _gather(measured, metric, keys)
    searched = selection.direction if metric == selection.metric else None
    lower = searched == "minimize" if searched else lower_is_better(metric)
    rows.sort(key=lambda row: row.summary.mean if lower else -row.summary.mean)
    for row in rows[1:]:
        row.difference = paired_difference(row.values, rows[0].values)
    differing = keys or _differing(rows)
    columns = keys or _columns(rows, differing)
    if any(row.configurations > 1 for row in rows):
        columns = [*columns, CONFIGURATIONS]
    notes = [*selection.notes, *_left_out(len(selection.runs) - len(measured), rows, metric)]
    notes += [*_also_differing(rows, keys), *_on_other_data(rows, metric)]
    return Comparison(selection, metric, lower, rows, columns, differing, notes)


def lower_is_better(metric: str) -> bool:
    """Whether the good end of a metric is the lower one, by its name."""
    return bool(_LOWER.search(metric))


def titles(columns: Sequence[str]) -> dict[str, str]:
    """A short name for each key: its last parts, as many as no other key ends with."""
    short = {}
    for key in columns:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in columns if other != key]
        short[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return short


def shown(value: str) -> str:
    """A value for a person: a class without its module, a long number with four digits."""
    if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", value):
        return f"{float(value):.4g}"
    return value.rpartition(".")[2] if re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value) else value


def _gather(runs: Sequence[StoredRun], metric: str, keys: Sequence[str]) -> list[Row]:
    groups: dict[Hashable, list[StoredRun]] = {}
    for run in runs:
        whole = run.configuration
        group = tuple(whole.get(key, "") for key in keys) if keys else tuple(whole.items())
        groups.setdefault(group, []).append(run)
    rests = _rests(list(groups.values()), keys) if keys else {}
    return [_row(group, metric, rests) for group in groups.values()]


def _rests(groups: Sequence[Sequence[StoredRun]], keys: Sequence[str]) -> dict[str, Hashable]:
    """What each run is beside these keys, by its id; nothing, if no row holds more than one such rest.

    The data's digest is a part of it only if some row holds runs that differ in nothing else: it may follow from a key.
    """
    whole = [{run.run_id: _rest(run, keys) for run in group} for group in groups]
    short = [{run.run_id: _rest(run, [*keys, DATA_HASH_KEY]) for run in group} for group in groups]
    mixed = any(len({*of_run.values()}) > len({*less.values()}) for of_run, less in zip(whole, short, strict=True))
    chosen = whole if mixed else short
    if all(len({*of_run.values()}) < 2 for of_run in chosen):
        return {}
    return {run_id: rest for of_run in chosen for run_id, rest in of_run.items()}


def _row(runs: Sequence[StoredRun], metric: str, rests: Mapping[str, Hashable]) -> Row:
    latest = {(rests.get(run.run_id, ()), run.seed): run for run in sorted(runs, key=lambda run: run.started)}
    counted = list(latest.values())
    first, *others = [run.configuration for run in counted]
    alike = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    values: dict[Hashable, float] = {key: float(run.metrics[metric]) for key, run in latest.items()}
    configurations = len({rest for rest, _ in latest})
    return Row(alike, counted, values, summarize(list(values.values())), configurations, len(runs) - len(counted))


def _rest(run: StoredRun, keys: Sequence[str]) -> Hashable:
    return tuple((key, value) for key, value in run.configuration.items() if key not in keys)


def _differing(rows: Sequence[Row]) -> list[str]:
    """The keys in which rows differ; the data's digest only where nothing else tells two rows apart."""
    keys = dict.fromkeys(key for row in rows for key in row.configuration if key != DATA_HASH_KEY)
    differing = [key for key in keys if len({row.label(key) for row in rows}) > 1]
    told = Counter(tuple(row.label(key) for key in differing) for row in rows)
    return [*differing, DATA_HASH_KEY] if any(count > 1 for count in told.values()) else differing


def _columns(rows: Sequence[Row], differing: Sequence[str]) -> list[str]:
    """Without the keys that say no more than the experiment's name: those that are alike within each experiment."""
    if EXPERIMENT_KEY not in differing:
        return list(differing)
    within: dict[str, list[Row]] = {}
    for row in rows:
        within.setdefault(row.label(EXPERIMENT_KEY), []).append(row)
    more = [key for key in differing if any(len({row.label(key) for row in group}) > 1 for group in within.values())]
    return [EXPERIMENT_KEY, *(key for key in more if key != EXPERIMENT_KEY)]


def _usual(runs: Sequence[StoredRun]) -> str:
    """The metric that most runs have, of those that are usual."""
    counts = Counter(metric for run in runs for metric in METRICS if metric in run.metrics)
    return max(METRICS, key=lambda metric: counts[metric])  # the first of those that are as frequent


def _no_metric(metric: str, selection: RunSelection) -> str:
    if not selection.runs:
        where = f" in {', '.join(selection.names)}" if selection.names else ""
        return f"there is no finished run{where}{f' with {selection.filter_string}' if selection.filter_string else ''}"
    counts = Counter(key for run in selection.runs for key in run.metrics)
    near = get_close_matches(metric, counts, n=3) or [key for key, _ in counts.most_common(8)]
    return f"none of {len(selection.runs)} finished runs has a finite {metric}; there is {', '.join(near) or 'none'}"


def _key(name: str, runs: Sequence[StoredRun]) -> str:
    """A key of the configuration, given in full or as its last parts."""
    known = sorted({key for run in runs for key in run.configuration} - {DATA_HASH_KEY})
    if name in known:
        return name
    ends = [key for key in known if key.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    near = ends or get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"--by {name}: no run has such a key{hint}")


def _left_out(missing: int, rows: Sequence[Row], metric: str) -> list[str]:
    repeats = sum(row.repeats for row in rows)
    notes = [f"{_runs(missing)} left out: finished, but without a finite {metric}"] if missing else []
    return notes + ([f"{_runs(repeats)} left out: a later one has the same configuration and seed"] if repeats else [])


def _runs(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"


def _also_differing(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """What a choice of keys hides: others in which whole rows differ."""
    others = [key for key in _differing(rows) if key not in (*keys, DATA_HASH_KEY)] if keys else []
    named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return [f"the rows differ in more than {', '.join(keys)}: also in {named}"] if others else []


def _on_other_data(rows: Sequence[Row], metric: str) -> list[str]:
    split = metric.removeprefix("selected/").partition("/")[0]
    sets = {run.tags.get(f"{DATA_HASH_KEY}.{split}") for row in rows for run in row.runs} - {None}
    said = f"{metric} was measured on {len(sets)} different {split} sets: differences between rows may be the data's"
    return [said] if len(sets) > 1 else []
