"""The result of a comparison in a few sentences."""

from collections.abc import Sequence

from pipelines.comparison.formatting import format_mean_sd, metric_cells
from pipelines.comparison.rows import Comparison
from pipelines.tracking.tags import SEARCH, STAGE_KEY

MAX_NAMES = 6  # rows or experiments in a sentence
MAX_LABEL = 40  # characters of a row's label in a sentence


def summarize_comparison(comparison: Comparison, labels: Sequence[str]) -> str:
    """Return the best row, its spread, and the rows that are within the noise of it.

    Args:
        comparison: The rows.
        labels: A label for each row; a short one is named with the row's number.
    """
    names = [
        f"row {number} ({label})" if len(label) <= MAX_LABEL else f"row {number}"
        for number, label in enumerate(labels, 1)
    ]
    best, *others = comparison.rows
    better = "lower is better" if comparison.lower_is_better else "higher is better"
    subject = f"best of {len(comparison.rows)} rows is {names[0]}: " if others else "one row has "
    spread = "a single run, so the spread is unknown"
    if best.summary.ci95 is not None:
        interval = metric_cells(best, comparison)["95 % interval"]
        spread = f"mean ± standard deviation of {best.summary.n} runs; 95 % interval of the mean {interval}"
    measured = format_mean_sd(best.summary.mean, best.summary.sd)
    sentences = [f"By {comparison.metric} ({better}), the {subject}{measured} ({spread})."]
    verdicts = [row.difference.within_noise for row in others if row.difference]  # None if there are too few runs
    ties = [name for name, verdict in zip(names[1:], verdicts, strict=True) if verdict]
    unknown = verdicts.count(None)
    if ties:
        sentences.append(f"Within the noise of it: {join_names(ties)}.")
    elif unknown < len(verdicts):
        sentences.append("No other row with enough runs is within the noise of it.")
    if unknown:
        sentences.append(f"{'1 row has' if unknown == 1 else f'{unknown} rows have'} too few runs to tell.")
    if best.value(STAGE_KEY) == SEARCH and others:
        sentences.append(
            "It is the best of a search, so its value is partly chance; runs on fresh seeds are a better estimate."
        )
    return " ".join(sentences)


def join_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
