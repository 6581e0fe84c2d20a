"""The result of a comparison in a few sentences."""

from collections.abc import Mapping, Sequence

from pipelines.comparison.formatting import format_mean_sd, metric_cells
from pipelines.comparison.rows import Comparison
from pipelines.tracking.tags import SEARCH, STAGE_KEY

MAX_NAMES = 6  # rows or experiments in a sentence
MAX_LABEL = 80  # characters of a row's label in a sentence


def summarize_comparison(comparison: Comparison, labels: Sequence[str]) -> list[str]:
    """Return a paragraph for each data set: the best row, its spread, and the rows that are within noise.

    Args:
        comparison: The rows.
        labels: A label for each row; a short one is named with the row's number.
    """
    named = {
        row.number: f"row {row.number} ({label})" if len(label) <= MAX_LABEL else f"row {row.number}"
        for row, label in zip(comparison.rows, labels, strict=True)
    }
    parts = comparison.by_data_set().items()
    return [_summarize(part, named, f" on {data_set}" if data_set else "") for data_set, part in parts]


def _summarize(comparison: Comparison, named: Mapping[int, str], on: str) -> str:
    best, *others = comparison.rows
    baseline = best.baseline or best
    better = "lower is better" if comparison.lower_is_better else "higher is better"
    subject = f"best of {len(comparison.rows)} rows is {named[best.number]}: " if others else "one row has "
    spread = "a single run, so the spread is unknown"
    if best.summary.ci95 is not None:
        interval = metric_cells(best, comparison)["95 % interval"]
        spread = f"mean ± standard deviation of {best.summary.n} runs; 95 % interval of the mean {interval}"
    measured = format_mean_sd(best.summary.mean, best.summary.sd)
    sentences = [f"By {comparison.metric}{on} ({better}), the {subject}{measured} ({spread})."]
    it = "it" if baseline is best else named[baseline.number]
    compared = [(row, row.difference.within_noise) for row in comparison.rows if row.difference]
    ties = [named[row.number] for row, within in compared if within]
    unknown = sum(within is None for _, within in compared)  # too few runs
    if ties:
        sentences.append(f"Within the noise of {it}: {join_names(ties)}.")
    elif unknown < len(compared):
        sentences.append(f"No other row with enough runs is within the noise of {it}.")
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
