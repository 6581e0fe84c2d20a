"""The metric of a comparison against the keys that differ, and against what a network costs.

An error bar is one standard deviation between runs to either side of their mean.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.comparison.intervals import summarize
from pipelines.comparison.rows import CONFIGURATIONS, Comparison, Row, shown, titles
from pipelines.evaluation.plots import LARGE_RATIO
from pipelines.tracking.tags import DATA_HASH_KEY, EXPERIMENT_KEY, FIT_SECONDS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CATEGORIES, LINES, MARKED = 12, 6, 12
LONG = 60  # characters of a label
WIDE = 30  # values that span more than this factor are drawn on a logarithmic scale
# Of different lightness, so that they differ in grey too, as far as they do; markers and lines do the rest.
COLOURS = ("#000000", "#1b5faa", "#c4451c", "#3b9a5f", "#a970c4", "#cf9a00")
MARKERS, STYLES = "os^DvPX*<>ph", ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
SPLITS = {"train": "training", "val": "validation", "test": "test"}
NAMES = {
    "acc": "accuracy (fraction{})",
    "knn_acc": "accuracy of the nearest codes' vote (fraction{})",
    FIT_SECONDS: "training time in seconds{}",
    "parameters": "number of parameters{}",
}
SPREAD = "mean ± 1 standard deviation"
Points = dict[float, list[float]]  # place on the axis to the metric of each run there


def labels(comparison: Comparison) -> list[str]:
    """What tells each row from the others, in one short line; a row's number where nothing does."""
    columns = [key for key in comparison.columns if key != CONFIGURATIONS]
    return _distinct([_said(row, columns, titles(columns)) or "all runs" for row in comparison.rows])


def _distinct(texts: Sequence[str]) -> list[str]:
    """The texts cut to a length, with a number where they would be alike then."""
    cut = [_short(text) for text in texts]
    return [f"{text} ({number + 1})" if cut.count(text) > 1 else text for number, text in enumerate(cut)]


def _said(row: Row, columns: Sequence[str], short: Mapping[str, str]) -> str:
    """What a row has in these columns, those that it does not have left out; an experiment by its bare name."""
    said = {key: shown(row.label(key)) for key in columns if row.label(key)}
    return " ".join(text if key == EXPERIMENT_KEY else f"{short[key]}={text}" for key, text in said.items())


def _short(text: str, length: int = LONG) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def metric_name(metric: str, beside: str = "") -> str:
    """A metric for a person, with its unit: "test/acc" is "test accuracy (fraction)"."""
    *parts, kind = metric.split("/")
    words = [SPLITS.get(part, part) for part in parts if part != "selected"]
    name = NAMES.get(kind)
    text = name.format(f", {beside}" if beside else "") if name else kind.replace("_", " ")
    selected = "\nof the selected epoch" if "selected" in parts else ""
    return " ".join([*words, text]) + selected + (f" ({beside})" if beside and not name else "")


def keys(comparison: Comparison) -> list[str]:
    """The keys to draw the metric against: those that say more than the experiment's name, or are all that differs."""
    differing = [key for key in comparison.differing if key not in (EXPERIMENT_KEY, DATA_HASH_KEY)]
    if len(differing) == 1:
        return differing
    return [key for key in comparison.columns if key not in (CONFIGURATIONS, DATA_HASH_KEY)]


def plot_metric_vs_param(comparison: Comparison, key: str) -> "Figure | None":
    """The metric against a key: a line for each combination of the other keys, or all of them together."""
    from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if row.label(key)]
    values = list(dict.fromkeys(row.label(key) for row in rows))
    places = _numbers(values)
    numeric = places is not None
    places = places or {value: float(number) for number, value in enumerate(values)}
    if len(set(places.values())) < 2 or not (numeric or len(values) <= CATEGORIES):
        return None
    lines, note = _lines(comparison, key, rows, places)
    height = 4.5 if numeric else 1.6 + 0.35 * len(values) * (1 + 0.4 * (len(lines) - 1))
    figure = Figure(figsize=(7.5 if len(lines) == 1 else 9.5, height), layout="constrained")
    axis = figure.subplots()
    for number, (label, points) in enumerate(lines.items()):
        aside = 0.0 if numeric else 0.5 * (number + 0.5) / len(lines) - 0.25
        _line(axis, number, label, {at + aside: those for at, those in points.items()}, upright=numeric)
    title = titles(comparison.columns).get(key, key.rpartition(".")[2])
    if numeric:
        _scale_of_values(axis, sorted(set(places.values())))
        axis.set(xlabel=title, ylabel=metric_name(comparison.metric, SPREAD))
    else:
        axis.set_yticks(list(places.values()), [_short(shown(value), 40) for value in values])
        axis.set(ylim=(len(values) - 0.5, -0.5), xlabel=metric_name(comparison.metric, SPREAD))
        axis.set_ylabel("" if key == EXPERIMENT_KEY else title)
    _scale_of_metric(axis, comparison, upright=numeric)
    axis.grid(alpha=0.3)
    left = len(comparison.rows) - len(rows)
    if notes := [text for text in (note, f"rows without {title}: {left}" if left else "") if text]:
        figure.suptitle("\n".join(notes), fontsize="small")
    if len(lines) > 1:
        _legend(figure)
    return figure


def _numbers(values: Sequence[str]) -> dict[str, float] | None:
    """The values as numbers, unless one of them is none."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers.values())) else None


def _lines(
    comparison: Comparison, key: str, rows: Sequence[Row], places: Mapping[str, float]
) -> tuple[dict[str, Points], str]:
    """The points of each line, by what it has in the other keys; all in one if there would be too many, and a note."""
    others = [other for other in comparison.columns if other not in (key, CONFIGURATIONS)]
    others = others if key in comparison.columns else []  # then nothing else differs but the experiment's name
    short = titles(comparison.columns)
    lines: dict[str, Points] = {}
    together: Points = {}
    for row in sorted(rows, key=lambda row: places[row.label(key)]):
        for points in (lines.setdefault(_said(row, others, short), {}), together):
            points.setdefault(places[row.label(key)], []).extend(row.values.values())
    if len(lines) > LINES or (len(lines) > 1 and all(len(points) < 2 for points in lines.values())):
        return {"": together}, f"other keys differ too: {_short(', '.join(short[other] for other in others))}"
    longest = sorted(lines, key=lambda line: -len(lines[line]))
    return dict(zip(_distinct(longest), (lines[line] for line in longest), strict=True)), ""


def _line(axis: "Axes", number: int, label: str, points: Points, *, upright: bool) -> None:
    """Means with error bars, over small dots for the single runs; upright if the metric is the vertical axis."""
    from matplotlib.transforms import offset_copy

    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    summaries = [summarize(values) for values in points.values()]
    places, means = list(points), [summary.mean for summary in summaries]
    sds = [summary.sd if summary.sd is not None else math.nan for summary in summaries]
    single = [(at, value) for at, values in points.items() for value in values]
    x, y = zip(*single, strict=True)
    dots = (x, y) if upright else (y, x)
    figure = axis.get_figure(root=True)
    beside = offset_copy(axis.transData, figure, *((7, 0) if upright else (0, -7)), units="points")
    axis.plot(*dots, ".", color=colour, markersize=4, alpha=0.6, zorder=1, transform=beside)
    style = STYLES[number % len(STYLES)] if upright else "none"
    bars: dict[str, Any] = {"yerr": sds} if upright else {"xerr": sds}
    across, up = (places, means) if upright else (means, places)
    axis.errorbar(
        across, up, **bars, color=colour, marker=marker, linestyle=style, markersize=6, capsize=3, lw=1.3, label=label
    )


def _scale_of_values(axis: "Axes", values: Sequence[float]) -> None:
    """Logarithmic for values that span much; a tick at each value where they leave room for it."""
    from matplotlib.ticker import NullLocator

    log = _is_wide(values)
    if log:
        axis.set_xscale("log")
    at = [math.log(value) for value in values] if log else list(values)
    gaps = [(b - a) / (at[-1] - at[0]) for a, b in itertools.pairwise(at)]
    if min(gaps) > 0.05:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.xaxis.set_minor_locator(NullLocator())


def _scale_of_metric(axis: "Axes", comparison: Comparison, *, upright: bool) -> None:
    values = [value for row in comparison.rows for value in row.values.values()]
    if comparison.lower_is_better and min(values) > 0 and max(values) > LARGE_RATIO * min(values):
        (axis.set_yscale if upright else axis.set_xscale)("log")
        (axis.set_ylim if upright else axis.set_xlim)(min(values) / 1.5, max(values) * 1.5)  # a bar may reach below 0


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > WIDE * min(values)


def plot_metric_vs_cost(comparison: Comparison) -> "Figure | None":
    """The metric against the number of parameters and the training time, as far as rows differ in them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    costs = [cost for cost in ("parameters", FIT_SECONDS) if len(_means(comparison, cost)) > 1]
    if not costs:
        return None
    figure = Figure(figsize=(4.2 * len(costs) + 2.6, 4.4), layout="constrained")
    axes = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    named = dict(zip(labels(comparison), comparison.rows, strict=True))
    for axis, cost in zip(axes, costs, strict=True):
        for number, (label, row) in enumerate(named.items()):
            _mark(axis, row, cost, label, number)
        axis.set_xlabel(metric_name(cost))
        axis.grid(alpha=0.3)
        if _is_wide(_means(comparison, cost)):
            axis.set_xscale("log")
        if cost == "parameters":
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        _scale_of_metric(axis, comparison, upright=True)
    axes[0].set_ylabel(metric_name(comparison.metric, SPREAD))
    _legend(figure, list(named), title="best first")
    return figure


def _means(comparison: Comparison, metric: str) -> list[float]:
    """The different means that rows have."""
    return sorted({mean for row in comparison.rows if (mean := row.mean(metric)) is not None})


def _mark(axis: "Axes", row: Row, cost: str, label: str, number: int) -> None:
    """A row's mean against its mean cost, with error bars both ways; in grey beyond those that markers can tell."""
    costs = [run.metrics[cost] for run in row.runs if cost in run.metrics]
    if not costs:
        return
    across = summarize(costs)
    told = number < MARKED
    axis.errorbar(
        [across.mean],
        [row.summary.mean],
        xerr=[across.sd or math.nan],
        yerr=[row.summary.sd or math.nan],
        color=COLOURS[number % len(COLOURS)] if told else "0.7",
        marker=MARKERS[number] if told else ".",
        linestyle="none",
        markersize=7 if told else 5,
        capsize=3,
        lw=1,
        label=label if told else "all others",
        zorder=3 if told else 2,
    )


def _legend(figure: "Figure", order: Sequence[str] = (), title: str = "") -> None:
    """One for all panels, at the right, without error bars; in this order, and what is not in it last."""
    from matplotlib.container import ErrorbarContainer

    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        bars = [part for part in axis.containers if isinstance(part, ErrorbarContainer)]
        entries |= {str(bar.get_label()): bar.lines[0] for bar in bars}
    texts = [text for text in order if text in entries]
    texts += [text for text in entries if text not in texts]
    handles = [entries[text] for text in texts]
    figure.legend(handles, texts, loc="outside right upper", fontsize="small", title=title)
