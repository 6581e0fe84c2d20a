"""What a person reads of a comparison: numbers with as many digits as mean something, and what they come to."""

import math
import re
from collections.abc import Sequence

from pipelines.comparison import rows
from pipelines.comparison.intervals import Difference, Summary
from pipelines.comparison.rows import Comparison, Row
from pipelines.runtime.console import format_duration
from pipelines.runtime.text import escape_control_characters
from pipelines.tracking.tags import FIT_SECONDS, SELECTED_EPOCH

UNPAIRED = " *"


def table_title(comparison: Comparison) -> str:
    """What is compared, and which end is the good one."""
    names, count = comparison.selection.names, len(comparison.rows)
    which = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    good = "lower" if comparison.lower_is_better else "higher"
    counted = "1 row" if count == 1 else f"{count} rows"
    return f"{comparison.metric} of {which or 'all experiments'}: {counted}, {good} is better"


def param_cells(row: Row, comparison: Comparison) -> dict[str, str]:
    """What a person reads of a row's configuration, by the keys that are columns."""
    return {key: rows.shown(row.label(key)) for key in comparison.columns}


def metric_cells(row: Row, comparison: Comparison) -> dict[str, str]:
    """What a person reads of a row's values, by title."""
    epoch, seconds, parameters = map(row.mean, (SELECTED_EPOCH, FIT_SECONDS, "parameters"))
    return {
        "mean ± sd": format_mean_sd(row.summary.mean, row.summary.sd),
        "n": str(row.summary.n),
        "95 % interval": _interval(row.summary),
        "difference to best": _difference(row.difference, row.summary.n) if row.difference else "",
        "verdict": verdict(row, lower_is_better=comparison.lower_is_better),
        "epoch": "" if epoch is None else f"{epoch:.1f}".removesuffix(".0"),
        "time": "" if seconds is None else format_duration(seconds),
        "parameters": "" if parameters is None else f"{parameters:,.0f}",
    }


def verdict(row: Row, *, lower_is_better: bool) -> str:
    """What the difference of a row to the best one comes to, in a word or two."""
    if row.difference is None:
        return "best"
    if row.difference.within_noise is None:
        return "n too small"
    if row.difference.within_noise:
        return "within noise"
    # The pairs may be fewer than the values, and then say something else than the means.
    return "worse" if (row.difference.mean > 0) == lower_is_better else "better in pairs"


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


def _interval(found: Summary) -> str:
    spec = _significant_spec(found.mean, found.sd)
    return "" if found.ci95 is None else f"{found.ci95[0]:{spec}} to {found.ci95[1]:{spec}}"


def _difference(found: Difference, n: int) -> str:
    half = None if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / 2
    spec = _significant_spec(found.mean, half)
    pairs = f" ({found.n} pairs)" if found.n < n else ""
    return format_mean_sd(found.mean, half, f"+{spec}", sd_spec=spec) + (pairs if found.paired else UNPAIRED)


def _significant_spec(mean: float, spread: float | None) -> str:
    """How to write a number: two digits of the spread, four of the mean without one, six of the mean at most."""
    size = max(abs(mean), spread or 0.0)
    if size and not 1e-4 <= size < 1e6:
        return ".2e"
    whole = _power(size)
    wanted = 1 - _power(spread) if spread else 3 - whole if size else 4
    return f".{max(0, min(wanted, 5 - whole))}f"


def _power(value: float) -> int:
    return math.floor(math.log10(value)) if value else 0


def footnote(some: Sequence[Row]) -> str:
    unpaired = any(row.difference and not row.difference.paired for row in some)
    return "* not in pairs: fewer than two seeds in common with the best row" if unpaired else ""


NO_BREAK_SPACE = "\u00a0"
_MARKUP = re.compile(r"[\\|*<]")  # "<" would begin HTML


def markdown_table(lines: Sequence[Sequence[str]], *, padded: bool = True) -> str:
    """Format a header and rows as a Markdown table, without a newline at the end; markup in cells is escaped.

    Args:
        lines: The cells of the header and of each row.
        padded: Pad each column's name to more than the column's width, for the MLflow UI, which leaves no gap between
            columns.
    """
    header, *body = [[_markdown_cell(text) for text in line] for line in lines]
    if padded:
        widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
        padding = [2 * (width - len(name)) + 4 for name, width in zip(header, widths, strict=True)]  # half as wide as 0
        header = [name + NO_BREAK_SPACE * count for name, count in zip(header, padding, strict=True)]
    first, *rows = [f"| {' | '.join(cells)} |" for cells in [header, *body]]
    return "\n".join([first, "|---" * len(header) + "|", *rows])


def _markdown_cell(text: str) -> str:
    return " ".join(_MARKUP.sub(r"\\\g<0>", escape_control_characters(text)).split())
