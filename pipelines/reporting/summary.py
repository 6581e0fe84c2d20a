"""The result of a comparison in a few sentences."""

from collections.abc import Sequence

from pipelines.comparison.formatting import format_mean_sd, metric_cells
from pipelines.comparison.rows import Comparison, Row
from pipelines.tracking.tags import SEARCH, STAGE_KEY

MAX_NAMES = 6  # rows or experiments in a sentence
MAX_LABEL = 40  # characters of a row's label in a sentence


def summarize_comparison(comparison: Comparison, labels: Sequence[str]) -> str:
    """Return the best row, its spread, and the rows that are within the noise of it.

    Args:
        comparison: The rows.
        labels: A label for each row.
    """
    best, *others = comparison.rows
    better = "lower is better" if comparison.lower_is_better else "higher is better"
    subject = f"best of {len(comparison.rows)} rows is {_name(0, labels)}: " if others else "one row has "
    summary = best.summary
    result = f"By {comparison.metric} ({better}), the {subject}{format_mean_sd(summary.mean, summary.sd)}"
    if summary.ci95 is None:
        result += " (a single run, so the spread is unknown)."
    else:
        interval = metric_cells(best, comparison)["95 % interval"]
        result += f" (mean ± standard deviation of {summary.n} runs; 95 % interval of the mean {interval})."
    return " ".join([result, *_ties(comparison, labels), *_selection_bias(best, others)])


def _ties(comparison: Comparison, labels: Sequence[str]) -> list[str]:
    """Name the rows that may be as good as the best."""
    within_noise = [row.difference.within_noise if row.difference else False for row in comparison.rows]
    ties = [_name(index, labels) for index, tie in enumerate(within_noise) if tie]
    unknown = within_noise.count(None)
    if len(within_noise) == 1:
        return []
    sentences = []
    if ties:
        sentences.append(f"Within the noise of it: {join_names(ties)}.")
    elif unknown < len(within_noise) - 1:
        sentences.append("No other row with enough runs is within the noise of it.")
    if unknown:
        rows = "1 row has" if unknown == 1 else f"{unknown} rows have"
        sentences.append(f"{rows} too few runs to tell.")
    return sentences


def _selection_bias(best: Row, others: Sequence[Row]) -> list[str]:
    if best.value(STAGE_KEY) == SEARCH and others:
        return ["It is the best of a search, so its value is partly chance; runs on fresh seeds are a better estimate."]
    return []


def _name(index: int, labels: Sequence[str]) -> str:
    """Name a row by its number, and by its label if that is short."""
    label = labels[index]
    return f"row {index + 1} ({label})" if len(label) <= MAX_LABEL else f"row {index + 1}"


def join_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
