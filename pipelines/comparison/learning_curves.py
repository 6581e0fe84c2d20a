"""Learning curves: mean and standard deviation over the runs of a row, one panel per row."""

import itertools
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from pipelines.comparison.intervals import Summary, summarize
from pipelines.evaluation.plots import LARGE_RATIO, label_learning_curves, panels, plot_learning_curve, spans
from pipelines.tracking.store import StoredRun

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("loss", "acc")
SPLITS = ("train", "val")
COLUMNS = 3  # panels side by side
TITLE = 36  # characters in a line of a panel's title
Curve = list[tuple[int, Summary]]  # epoch, and the summary of the runs that reached it


def plot_learning_curves(runs_by_label: Mapping[str, Sequence[StoredRun]]) -> "Figure":
    """Plot training and validation loss and accuracy over the epochs: mean ± one standard deviation over runs.

    Each label has one panel for loss and one for accuracy, all on the same scale, with the validation curves of the
    other labels in grey. Where runs differ in length, the mean is over those that reached the epoch.
    """
    curves = {label: _read(runs) for label, runs in runs_by_label.items()}
    kinds = [kind for kind in KINDS if any((split, kind) in found for found in curves.values() for split in SPLITS)]
    kinds = kinds or ["loss"]  # a module that logs neither
    figure, grid = _grid(list(curves), kinds)
    for kind in kinds:
        for label in curves:
            others = [curves[other] for other in curves if other != label]
            _plot_panel(grid[label, kind], kind, curves[label], others)
        _share_scale([grid[label, kind] for label in curves], kind, list(curves.values()))
    for label in curves:
        title = "\n".join([*wrap(label, TITLE), f"({_run_counts(runs_by_label[label], curves[label])})"])
        for kind in kinds if len(curves) == 1 else kinds[:1]:
            grid[label, kind].set_title(title, fontsize="medium")
    _legend(figure)
    return figure


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


def _read(runs: Sequence[StoredRun]) -> dict[tuple[str, str], Curve]:
    """Return the curves of the metrics that the runs have, by split and kind."""
    curves = {}
    for split, kind in itertools.product(SPLITS, KINDS):
        metric = f"{split}/{kind}"
        histories = [_history(run, metric) for run in runs if metric in run.metrics]
        epochs = sorted({epoch for history in histories for epoch in history})
        curve = [(epoch, summarize([values[epoch] for values in histories if epoch in values])) for epoch in epochs]
        if curve:
            curves[split, kind] = curve
    return curves


def _history(run: StoredRun, metric: str) -> dict[int, float]:
    """Return the finite values by epoch; of an epoch that was logged twice, the latest."""
    points = run.store.client.get_metric_history(run.run_id, metric)
    points = sorted(points, key=lambda point: int(point.timestamp))
    return {int(point.step): float(point.value) for point in points if math.isfinite(point.value)}


def _plot_panel(
    axis: "Axes", kind: str, curves: Mapping[tuple[str, str], Curve], others: Sequence[Mapping[tuple[str, str], Curve]]
) -> None:
    """Plot the curves of one label, over the validation curves of the others in grey."""
    axis.set_axis_on()
    for other in others:
        if ("val", kind) in other:
            epochs, means = zip(*((epoch, point.mean) for epoch, point in other["val", kind]), strict=True)
            axis.plot(epochs, means, color="0.75", linewidth=0.8, zorder=1, label="validation of the other panels")
    for split in SPLITS:
        if curve := curves.get((split, kind)):
            epochs, points = zip(*curve, strict=True)
            plot_learning_curve(axis, split, epochs, [point.mean for point in points], [point.sd for point in points])
    label_learning_curves(axis, kind)


def _share_scale(panels: "Sequence[Axes]", kind: str, all_curves: Sequence[Mapping[tuple[str, str], Curve]]) -> None:
    """Give all panels of a kind one scale; a logarithmic one for a loss that falls far."""
    means = [point.mean for curves in all_curves for split in SPLITS for _, point in curves.get((split, kind), [])]
    for panel in panels[1:]:
        panel.sharey(panels[0])
    if kind == "loss" and spans(LARGE_RATIO, means):
        panels[0].set_yscale("log")
        panels[0].set_ylim(bottom=min(means) / 2)  # a band may reach below 0


def _run_counts(runs: Sequence[StoredRun], curves: Mapping[tuple[str, str], Curve]) -> str:
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
