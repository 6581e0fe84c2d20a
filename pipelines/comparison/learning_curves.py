"""Learning curves: mean and standard deviation over the runs of a row, one panel per row."""

import itertools
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from pipelines.comparison.intervals import Summary, summarize
from pipelines.evaluation.plots import LARGE_RATIO, label_learning_curves, panels, plot_learning_curve, spans
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.metric_names import split_of, without_split
from pipelines.tracking.measured import is_measured
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED, SELECTED_EPOCH

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("loss", "acc")
SPLITS = ("train", "val")
COLUMNS = 3  # panels side by side
TITLE = 36  # characters in a line of a panel's title
Curves = dict[
    tuple[str, str], list[tuple[int, Summary]]
]  # of a split's metric: each epoch, with the summary of the runs that reached it


@figure_style()
def plot_learning_curves(runs_by_label: Mapping[str, Sequence[StoredRun]]) -> "Figure":
    """Plot training and validation loss and accuracy over the epochs: mean ± one standard deviation over runs.

    Each label has one panel for loss and one for accuracy, all on the same scale, with the validation curves of the
    other labels in grey. Where runs differ in length, the mean is over those that reached the epoch.
    """
    runs = [run for runs in runs_by_label.values() for run in runs]
    logged = dict.fromkeys(kind for run in runs for _, kind in curve_names(run.metrics))
    kinds = [kind for kind in KINDS if kind in logged] or list(logged)[: len(KINDS)] or ["loss"]
    curves = {label: _read(runs, kinds) for label, runs in runs_by_label.items()}
    figure, grid = _grid(list(curves), kinds)
    for kind in kinds:
        for label in curves:
            others = [curves[other] for other in curves if other != label]
            _plot_panel(grid[label, kind], kind, curves[label], others)
        first, *rest = [grid[label, kind] for label in curves]
        for axis in rest:
            axis.sharey(first)
        drawn = [found.get((split, kind), []) for found in curves.values() for split in SPLITS]
        means = [point.mean for curve in drawn for _, point in curve]
        if kind == "loss" and spans(LARGE_RATIO, means):
            first.set_yscale("log")
            first.set_ylim(bottom=min(means) / 2)  # a band may reach below 0
    for label in curves:
        title = "\n".join([*wrap(label, TITLE), f"({_run_counts(runs_by_label[label], curves[label])})"])
        for kind in kinds if len(curves) == 1 else kinds[:1]:
            grid[label, kind].set_title(title, fontsize="medium")
    _legend(figure)
    return figure


def curve_names(metrics: Mapping[str, float]) -> dict[tuple[str, str], str]:
    """Return the metrics of a run that have a value for each epoch, by split and what they measure.

    Those are the ones of which the run selected an epoch's value; others have steps as x axis.
    """
    names: dict[tuple[str, str], str] = {}
    for name in sorted(metrics):
        split = split_of(name)
        if split in SPLITS and is_measured(name) and f"{SELECTED}/{name}" in metrics:
            names.setdefault((split, without_split(name)), name)
    return names


def _grid(labels: Sequence[str], kinds: Sequence[str]) -> "tuple[Figure, dict[tuple[str, str], Axes]]":
    """Return a figure and its panels by label and kind; the kinds of a single label are side by side."""
    alone = len(labels) == 1
    blocks = math.ceil(len(labels) / COLUMNS)
    columns = len(kinds) if alone else math.ceil(len(labels) / blocks)
    figure, axes = panels(columns * (1 if alone else blocks * len(kinds)), columns, size=(4, 2.9), extra=(1, 1))
    for axis in axes:
        axis.set_axis_off()  # unless it becomes a panel
    grid = {}
    for (index, label), (number, kind) in itertools.product(enumerate(labels), enumerate(kinds)):
        block, column = divmod(index, columns)
        row = block * len(kinds) + number
        grid[label, kind] = axes[number if alone else row * columns + column]
    return figure, grid


def _read(runs: Sequence[StoredRun], kinds: Sequence[str]) -> Curves:
    """Return the curves of some kinds of metrics; of an epoch that was logged twice, the latest value."""
    curves: Curves = {}
    names = {run.run_id: curve_names(run.metrics) for run in runs}
    for split, kind in itertools.product(SPLITS, kinds):
        values: dict[int, list[float]] = {}  # of the runs, by epoch
        for run in (run for run in runs if (split, kind) in names[run.run_id]):
            metric = names[run.run_id][split, kind]
            points = run.store.client.get_metric_history(run.run_id, metric)
            points = sorted(points, key=lambda point: int(point.timestamp))
            latest = {int(point.step): float(point.value) for point in points if math.isfinite(point.value)}
            if _has_other_axis(run, metric, latest):
                continue
            for epoch, value in latest.items():
                values.setdefault(epoch, []).append(value)
        if values:
            curves[split, kind] = [(epoch, summarize(values[epoch])) for epoch in sorted(values)]
    return curves


def _has_other_axis(run: StoredRun, metric: str, points: Mapping[int, float]) -> bool:
    """Return whether the x axis is not the epoch: the value at the selected epoch is not the one that was selected."""
    selected = run.metrics.get(f"{SELECTED}/{metric}", math.nan)
    return math.isfinite(selected) and points.get(int(run.metrics.get(SELECTED_EPOCH, -1))) != selected


def _plot_panel(axis: "Axes", kind: str, curves: Curves, others: Sequence[Curves]) -> None:
    """Plot the curves of one label, over the validation curves of the others in grey."""
    axis.set_axis_on()
    for other in others:
        if curve := other.get(("val", kind)):
            epochs, points = zip(*curve, strict=True)
            means = [point.mean for point in points]
            axis.plot(epochs, means, color="0.75", linewidth=0.8, zorder=1, label="validation of the other panels")
    for split in SPLITS:
        if curve := curves.get((split, kind)):
            epochs, points = zip(*curve, strict=True)
            plot_learning_curve(axis, split, epochs, [point.mean for point in points], [point.sd for point in points])
    label_learning_curves(axis, kind)


def _run_counts(runs: Sequence[StoredRun], curves: Curves) -> str:
    """Return the number of runs, and from which epoch on there are fewer."""
    unit = "seed" if len({run.seed for run in runs}) == len(runs) else "run"
    text = f"n = {len(runs)} {unit}" + ("" if len(runs) == 1 else "s")
    counts = [(epoch, point.n) for epoch, point in max(curves.values(), key=len, default=[])]
    changes = [
        f"{after} from epoch {epoch}" for (_, before), (epoch, after) in itertools.pairwise(counts) if after != before
    ]
    return ", ".join([text, *changes]) if len(changes) <= 2 else f"{text}, {changes[-1]}"


def _legend(figure: "Figure") -> None:
    """Draw one legend for all panels, below them."""
    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    order = sorted(entries, key=lambda text: (text.startswith("validation"), "other panels" in text))
    figure.legend([entries[text] for text in order], order, loc="outside lower center", ncols=2, fontsize="small")
