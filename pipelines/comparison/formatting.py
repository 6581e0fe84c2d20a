"""Format numbers and rows for people: means with their spread, table cells, verdicts, Markdown tables."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison.baseline import default_baseline
from pipelines.comparison.columns import folded_keys, format_value, set_with_classes
from pipelines.comparison.intervals import Difference
from pipelines.comparison.row import Row, overlap
from pipelines.comparison.rows import Comparison
from pipelines.runtime.console import format_duration
from pipelines.runtime.text import escape_control_characters, short_names
from pipelines.tracking.passive import class_list
from pipelines.tracking.tags import FIT_SECONDS, PARAMETERS, SEARCH, SELECTED_EPOCH, STAGE_KEY

UNPAIRED = " *"
BEST_TRIAL = "best trial"  # of a search: the luckiest of many, which fresh seeds have not confirmed


def table_title(comparison: Comparison, data_set: str = "") -> str:
    """Return what is compared, and which values are better."""
    names, count = comparison.selection.names, len(comparison.rows)
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    on = f" on {data_set}" if data_set else ""
    rows = "1 row" if count == 1 else f"{count} rows"
    better = "lower" if comparison.lower_is_better else "higher"
    return f"{comparison.metric} of {listed or 'all experiments'}{on}: {rows}, {better} is better"


def param_cells(rows: Sequence[Row], comparison: Comparison) -> list[dict[str, str]]:
    """Return the cells of each row's configuration, by their titles."""
    folded = folded_keys(comparison.columns, comparison.rows)
    inside = set_with_classes(comparison.rows, folded)
    shown = {key: name for key, name in short_names(comparison.columns).items() if key not in folded}
    return [{name: _param_cell(row, key, comparison, inside) for key, name in shown.items()} for row in rows]


def _param_cell(row: Row, key: str, comparison: Comparison, inside: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """Return a row's value of a key: of a class, its name and what was set with it."""
    value = row.value(key)
    if classes := class_list(value):
        return _format_classes(classes, key, comparison)
    names = [name for name in inside.get((key, value), ()) if row.value(name)]
    given = [f"{name.removeprefix(f'{key}.')}={format_value(row.value(name))}" for name in names]
    return " ".join([format_value(value), *given])


def _format_classes(classes: Sequence[Mapping[str, Any]], key: str, comparison: Comparison) -> str:
    """Format a list of classes: their names, with the arguments in which rows differ."""
    others = [one for row in comparison.rows for one in class_list(row.value(key))]
    texts = []
    for one in classes:
        name, arguments = str(one["class_path"]), one.get("init_args") or {}
        same = [other.get("init_args") or {} for other in others if other["class_path"] == name]
        differing = [key for key, value in arguments.items() if any(other.get(key) != value for other in same)]
        shown = ", ".join(f"{key}={arguments[key]}" for key in differing)
        texts.append(format_value(name) + (f"({shown})" if shown else ""))
    return ", ".join(texts)


def metric_cells(row: Row, comparison: Comparison) -> dict[str, str]:
    """Return the cells of a row's values, by column title."""
    epoch, seconds, parameters = map(row.mean, (SELECTED_EPOCH, FIT_SECONDS, PARAMETERS))
    summary = row.summary
    spec = _significant_spec(summary.mean, summary.sd)
    return {
        "mean ± sd": format_mean_sd(summary.mean, summary.sd),
        "n": str(summary.n),
        "95 % interval": f"{summary.ci95[0]:{spec}} to {summary.ci95[1]:{spec}}" if summary.ci95 else "",
        "difference": _difference(row.difference, summary.n, summary.mean) if row.difference else "",
        "verdict": verdict(row, lower_is_better=comparison.lower_is_better),
        "epoch": "" if epoch is None else f"{epoch:.1f}".removesuffix(".0"),
        "time": "" if seconds is None else format_duration(seconds),
        "parameters": "" if parameters is None else f"{parameters:,.0f}",
    }


def verdict(row: Row, *, lower_is_better: bool) -> str:
    """Return in a word or two what the difference to the baseline means."""
    best = BEST_TRIAL if row.value(STAGE_KEY) == SEARCH else "best"
    if row.baseline is None or row.difference is None:
        return best if row.rank == 1 else "baseline"
    if row.difference.within_noise is None:
        return BEST_TRIAL if row.rank == 1 and best == BEST_TRIAL else "n too small"
    if row.difference.within_noise:
        return "within noise"
    word = "worse" if (row.difference.mean > 0) == lower_is_better else "better"
    # There may be fewer pairs than values; their differences can then contradict the means.
    return word if (word == "worse") == (row.rank > row.baseline.rank) else f"{word} in pairs"


def format_mean_sd(mean: float, sd: float | None = None, spec: str | None = None, *, sd_spec: str | None = None) -> str:
    """Format a mean and its standard deviation: "0.984 ± 0.012", or "0.9843" without one.

    Args:
        mean: The mean.
        sd: The standard deviation; None for a single value.
        spec: Format specification of both, such as ".4f"; by default, two significant digits of the standard deviation.
        sd_spec: Format specification of the standard deviation, if it is another one.
    """
    spec = spec or _significant_spec(mean, sd)
    return f"{mean:{spec}}" + ("" if sd is None else f" ± {sd:{sd_spec or spec}}")


def fixed_spec(mean: float) -> str:
    """Return the format of numbers that stand below one another in notes: four decimals, or ".2e" for small ones."""
    return ".4f" if abs(mean) >= 0.01 or mean == 0 else ".2e"


def _difference(difference: Difference, n: int, mean: float) -> str:
    """Format a difference to the baseline, with half its interval; the number of pairs if it is less than n.

    `mean` is that of the row: a difference of less than a millionth of it, which rounding may cause, is shown as 0.
    """
    half = None if difference.ci95 is None else (difference.ci95[1] - difference.ci95[0]) / 2
    value = difference.mean if abs(difference.mean) >= 1e-6 * abs(mean) else 0.0
    spec = _significant_spec(value, half)
    pairs = f" ({difference.n} pairs)" if difference.n < n else ""
    text = format_mean_sd(value, half, f"+{spec}", sd_spec=spec)
    return text + (pairs if difference.paired else UNPAIRED)


def _significant_spec(mean: float, spread: float | None) -> str:
    """Keep two digits of the spread, or four of the mean without one; at most six of the mean."""
    size = max(abs(mean), spread or 0.0)
    if size and not 1e-4 <= size < 1e6:
        return ".2e"
    leading = _power(size)
    decimals = 1 - _power(spread) if spread else 3 - leading if size else 4
    return f".{max(0, min(decimals, 5 - leading))}f"


def _power(value: float) -> int:
    return math.floor(math.log10(value)) if value else 0


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return what the reader of a table of rows on one data set should know: the baseline, the mark on differences."""
    baseline = next((row.baseline for row in rows if row.baseline), None)
    if baseline is None:
        return []
    named = "the best row" if baseline.rank == 1 else f"row {baseline.number}"
    is_usual = rows[0].summary.n == 1 and baseline is default_baseline(rows)
    why = " (the best one has a single run)" if is_usual else ""
    notes = [] if baseline.rank == 1 else [f"differences are to {named}{why}"]
    if any(row.difference and not row.difference.paired for row in rows):
        what = "seeds of the same fold" if any(overlap(row.runs) for row in rows) else "seeds"
        notes.append(f"* not in pairs: fewer than two {what} in common with {named}")
    return notes


def remarks(comparison: Comparison) -> list[str]:
    """Return what stands below a table of rows on one data set: footnotes, and the looks at the test set."""
    return [*footnotes(comparison.rows), *look_note(comparison)]


def look_note(comparison: Comparison) -> list[str]:
    """Return how many looks there were at the test set, with the 95 % interval of the best row that allows for them."""
    if comparison.looks is None:
        return []
    best = comparison.rows[0]
    interval, summary = comparison.looks.intervals[best.number], best.summary
    if interval is None:
        return [f"{comparison.looks.text}; row {best.number}, the best of them, is partly chance"]
    low, high = (format(end, _significant_spec(summary.mean, summary.sd)) for end in interval)
    what = f"row {best.number}" if summary.n > 1 else f"network of row {best.number}"
    return [f"{comparison.looks.text}; {what}, corrected: {low} to {high}"]


NO_BREAK_SPACE = "\u00a0"
_MARKUP = re.compile(r"[\\|*<]")  # "<" would begin HTML


def markdown_table(lines: Sequence[Sequence[str]], *, padded: bool = True) -> str:
    """Format a header and rows as a Markdown table, without a newline at the end; markup in cells is escaped.

    Args:
        lines: The cells of the header and of each row.
        padded: Pad each column's name to more than the column's width, for the MLflow UI, which leaves no gap between
            columns.
    """
    escaped = [[_MARKUP.sub(r"\\\g<0>", escape_control_characters(text)) for text in line] for line in lines]
    header, *body = [[" ".join(text.split()) for text in line] for line in escaped]
    if padded:
        widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
        padding = [2 * (width - len(name)) + 4 for name, width in zip(header, widths, strict=True)]  # half as wide as 0
        header = [name + NO_BREAK_SPACE * count for name, count in zip(header, padding, strict=True)]
    first, *rows = [f"| {' | '.join(cells)} |" for cells in [header, *body]]
    return "\n".join([first, "|---" * len(header) + "|", *rows])
