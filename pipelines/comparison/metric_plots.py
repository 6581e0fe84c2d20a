"""Plot the metric of a comparison against params, and against the number of parameters and the training time.

Error bars are one standard deviation over runs to either side of the mean.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from pipelines.comparison.columns import format_value
from pipelines.comparison.intervals import summarize
from pipelines.comparison.row import CONFIGURATIONS, Row
from pipelines.comparison.rows import Comparison
from pipelines.evaluation.plots import LARGE_RATIO, METRIC_NAMES, panels, spans
from pipelines.runtime.figure_style import COLOURS
from pipelines.runtime.metric_names import split_of, without_split
from pipelines.runtime.text import short_names
from pipelines.tracking.tags import DATA_HASH_KEY, EXPERIMENT_KEY, FIT_SECONDS, PARAMETERS, SELECTED

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CATEGORIES, MAX_LINES, MAX_MARKERS = 12, 6, 12
MAX_LABEL = 60  # characters
MAX_LINE = 34  # characters in a line of an axis's label: the axis may be 3 inches high
WIDE = 30  # values that span more than this factor get a logarithmic axis
MARKERS, STYLES = "os^DvPX*<>ph", ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
SPLITS = {"train": "training", "val": "validation", "test": "test"}
NAMES = {**METRIC_NAMES, FIT_SECONDS: "training time in seconds{}", PARAMETERS: "number of parameters{}"}
SPREAD = "mean ± 1 standard deviation"
Points = dict[float, list[float]]  # position on the axis to the metric of each run


def row_labels(comparison: Comparison) -> list[str]:
    """Return a short, unique label for each row: what distinguishes it from the others, numbered if nothing does."""
    columns = [key for key in comparison.columns if key != CONFIGURATIONS]
    return _distinct([_describe(row, columns, short_names(columns)) or "all runs" for row in comparison.rows])


def _distinct(labels: Sequence[str]) -> list[str]:
    """Shorten the labels, and number those that are the same then."""
    short = [_shorten(label) for label in labels]
    return [f"{label} ({index + 1})" if short.count(label) > 1 else label for index, label in enumerate(short)]


def _describe(row: Row, columns: Sequence[str], names: Mapping[str, str]) -> str:
    """Return "key=value ..." for the columns that are set; an experiment without its key."""
    values = {key: format_value(row.value(key)) for key in columns if row.value(key)}
    return " ".join(text if key == EXPERIMENT_KEY else f"{names[key]}={text}" for key, text in values.items())


def _shorten(text: str, length: int = MAX_LABEL) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def metric_name(metric: str, remark: str = "") -> str:
    """Return the label of an axis, with the unit: "test accuracy (fraction)" for "test/acc"."""
    *parts, kind = metric.split("/")
    if (split := split_of(kind)) and without_split(kind) != kind:  # val_acc
        parts, kind = [*parts, split], without_split(kind)
    words = [SPLITS.get(part, part) for part in parts if part != SELECTED]
    name = NAMES.get(kind)
    text = name.format(f", {remark}" if remark else "") if name else kind.replace("_", " ")
    selected = "\nof the selected epoch" if SELECTED in parts else ""
    label = " ".join([*words, text])
    return fill(label, MAX_LINE) + selected + (f"\n({remark})" if remark and not name else "")


def keys_to_plot(comparison: Comparison) -> list[str]:
    """Return the keys to plot the metric against: the columns, or the only key besides the experiment that differs."""
    differing = [key for key in comparison.differing if key not in (EXPERIMENT_KEY, DATA_HASH_KEY)]
    if len(differing) == 1:
        return differing
    return [key for key in comparison.columns if key not in (CONFIGURATIONS, DATA_HASH_KEY)]


def plot_metric_vs_param(comparison: Comparison, key: str) -> "Figure | None":
    """Plot the metric against a key, with one line per combination of the other keys, or all combinations in one line.

    Returns:
        The figure; None if the key has fewer than two values, or too many that are not numbers.
    """
    rows = [row for row in comparison.rows if row.value(key)]
    values = list(dict.fromkeys(row.value(key) for row in rows))
    positions = _as_numbers(values)
    numeric = positions is not None
    positions = positions or {value: float(index) for index, value in enumerate(values)}
    if len(set(positions.values())) < 2 or not (numeric or len(values) <= MAX_CATEGORIES):
        return None
    lines, note = _lines(comparison, key, rows, positions)
    height = 4.5 if numeric else 1.6 + 0.35 * len(values) * (1 + 0.4 * (len(lines) - 1))
    figure, (axis,) = panels(1, size=(7.5 if len(lines) == 1 else 9.5, height))
    for index, (label, points) in enumerate(lines.items()):
        shift = 0.0 if numeric else 0.5 * (index + 0.5) / len(lines) - 0.25
        _line(axis, index, label, {position + shift: runs for position, runs in points.items()}, vertical=numeric)
    title = short_names(comparison.columns).get(key, key.rpartition(".")[2])
    if numeric:
        _scale_param_axis(axis, sorted(set(positions.values())))
        axis.set(xlabel=title, ylabel=metric_name(comparison.metric, SPREAD))
    else:
        axis.set_yticks(list(positions.values()), [_shorten(format_value(value), 40) for value in values])
        axis.set(ylim=(len(values) - 0.5, -0.5), xlabel=metric_name(comparison.metric, SPREAD))
        axis.set_ylabel("" if key == EXPERIMENT_KEY else title)
    _scale_metric_axis(axis, comparison, vertical=numeric)
    axis.grid(alpha=0.3)
    missing = len(comparison.rows) - len(rows)
    if notes := [text for text in (note, f"rows without {title}: {missing}" if missing else "") if text]:
        figure.suptitle("\n".join(notes), fontsize="small")
    if len(lines) > 1:
        _legend(figure)
    return figure


def _as_numbers(values: Sequence[str]) -> dict[str, float] | None:
    """Return the values as numbers; None unless all are finite numbers."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers.values())) else None


def _lines(
    comparison: Comparison, key: str, rows: Sequence[Row], positions: Mapping[str, float]
) -> tuple[dict[str, Points], str]:
    """Return the points of each line, by its values of the other keys, and a note.

    All points are one line if there would be too many lines, or lines of single points only.
    """
    others = [other for other in comparison.columns if other not in (key, CONFIGURATIONS)]
    others = others if key in comparison.columns else []  # else only the experiment's name differs too
    names = short_names(comparison.columns)
    lines: dict[str, Points] = {}
    pooled: Points = {}
    for row in sorted(rows, key=lambda row: positions[row.value(key)]):
        for points in (lines.setdefault(_describe(row, others, names), {}), pooled):
            points.setdefault(positions[row.value(key)], []).extend(row.values.values())
    if len(lines) > MAX_LINES or (len(lines) > 1 and all(len(points) < 2 for points in lines.values())):
        return {"": pooled}, f"other keys differ too: {_shorten(', '.join(names[other] for other in others))}"
    longest = sorted(lines, key=lambda line: -len(lines[line]))
    return dict(zip(_distinct(longest), (lines[line] for line in longest), strict=True)), ""


def _line(axis: "Axes", index: int, label: str, points: Points, *, vertical: bool) -> None:
    """Plot means with error bars beside small dots for the single runs; `vertical` if the y axis is the metric."""
    from matplotlib.transforms import offset_copy

    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    summaries = [summarize(values) for values in points.values()]
    positions, means = list(points), [summary.mean for summary in summaries]
    sds = [summary.sd if summary.sd is not None else math.nan for summary in summaries]
    runs = [(position, value) for position, values in points.items() for value in values]
    x, y = zip(*runs, strict=True)
    dots = (x, y) if vertical else (y, x)
    figure = axis.get_figure(root=True)
    offset = offset_copy(axis.transData, figure, *((7, 0) if vertical else (0, -7)), units="points")
    axis.plot(*dots, ".", color=colour, markersize=4, alpha=0.6, zorder=1, transform=offset)
    style = STYLES[index % len(STYLES)] if vertical else "none"
    bars: dict[str, Any] = {"yerr": sds} if vertical else {"xerr": sds}
    across, up = (positions, means) if vertical else (means, positions)
    axis.errorbar(
        across, up, **bars, color=colour, marker=marker, linestyle=style, markersize=6, capsize=3, lw=1.3, label=label
    )


def _scale_param_axis(axis: "Axes", values: Sequence[float]) -> None:
    """Make the x axis logarithmic for a wide range of values; set a tick at each value if there is room."""
    from matplotlib.ticker import NullLocator

    log = spans(WIDE, values)
    if log:
        axis.set_xscale("log")
    positions = [math.log(value) for value in values] if log else list(values)
    gaps = [(b - a) / (positions[-1] - positions[0]) for a, b in itertools.pairwise(positions)]
    if min(gaps) > 0.05:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.xaxis.set_minor_locator(NullLocator())


def _scale_metric_axis(axis: "Axes", comparison: Comparison, *, vertical: bool) -> None:
    """Make the axis of the metric logarithmic for losses that span orders of magnitude."""
    values = [value for row in comparison.rows for value in row.values.values()]
    if comparison.lower_is_better and spans(LARGE_RATIO, values):
        (axis.set_yscale if vertical else axis.set_xscale)("log")
        (axis.set_ylim if vertical else axis.set_xlim)(min(values) / 1.5, max(values) * 1.5)  # a bar may reach below 0


def plot_metric_vs_cost(comparison: Comparison) -> "Figure | None":
    """Plot the metric against the number of parameters and the training time; None if rows do not differ in them."""
    from matplotlib.ticker import EngFormatter

    costs = [cost for cost in (PARAMETERS, FIT_SECONDS) if len(_means(comparison, cost)) > 1]
    if not costs:
        return None
    figure, axes = panels(len(costs), size=(4.2, 4.4), extra=(2.6, 0), sharey=True)
    rows = dict(zip(row_labels(comparison), comparison.rows, strict=True))
    for axis, cost in zip(axes, costs, strict=True):
        for index, (label, row) in enumerate(rows.items()):
            _plot_row(axis, index, label, row, cost)
        axis.set_xlabel(metric_name(cost))
        axis.grid(alpha=0.3)
        if spans(WIDE, _means(comparison, cost)):
            axis.set_xscale("log")
        if cost == PARAMETERS:
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        _scale_metric_axis(axis, comparison, vertical=True)
    axes[0].set_ylabel(metric_name(comparison.metric, SPREAD))
    _legend(figure, list(rows), title="best first")
    return figure


def _means(comparison: Comparison, metric: str) -> list[float]:
    """Return the distinct means of the rows."""
    return sorted({mean for row in comparison.rows if (mean := row.mean(metric)) is not None})


def _plot_row(axis: "Axes", index: int, label: str, row: Row, cost: str) -> None:
    """Plot a row's mean against its mean cost, with error bars; in grey once the markers are used up."""
    costs = [run.metrics[cost] for run in row.runs if cost in run.metrics]
    if not costs:
        return
    summary = summarize(costs)
    marked = index < MAX_MARKERS
    axis.errorbar(
        [summary.mean],
        [row.summary.mean],
        xerr=[summary.sd or math.nan],
        yerr=[row.summary.sd or math.nan],
        color=COLOURS[index % len(COLOURS)] if marked else "0.7",
        marker=MARKERS[index] if marked else ".",
        linestyle="none",
        markersize=7 if marked else 5,
        capsize=3,
        lw=1,
        label=label if marked else "all others",
        zorder=3 if marked else 2,
    )


def _legend(figure: "Figure", order: Sequence[str] = (), title: str = "") -> None:
    """Draw one legend for all panels, at the right, without error bars; labels that are not in `order` come last."""
    from matplotlib.container import ErrorbarContainer

    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        bars = [part for part in axis.containers if isinstance(part, ErrorbarContainer)]
        entries |= {str(bar.get_label()): bar.lines[0] for bar in bars}
    texts = [text for text in order if text in entries]
    texts += [text for text in entries if text not in texts]
    handles = [entries[text] for text in texts]
    figure.legend(handles, texts, loc="outside right upper", fontsize="small", title=title)
