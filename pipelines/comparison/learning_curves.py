"""Learning curves: mean and standard deviation over the runs of a row, one panel per row."""

import itertools
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from pipelines.comparison.intervals import Summary, summarize
from pipelines.evaluation.plots import label_learning_curves, plot_learning_curve, spans_decades
from pipelines.tracking.store import StoredRun

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("loss", "acc")
SPLITS = ("train", "val")
COLUMNS = 3  # panels side by side
TITLE = 36  # characters that a panel's title has room for, in a line
Curve = list[tuple[int, Summary]]  # epoch, and the summary of the runs that reached it


def plot_learning_curves(runs_by_label: Mapping[str, Sequence[StoredRun]]) -> "Figure":
    """Plot training and validation loss and accuracy over the epochs: mean ± one standard deviation over runs.

    Each label has one panel for loss and one for accuracy, all on the same scale, with the validation curves of the
    other labels in grey. Where runs differ in length, the mean is over those that reached the epoch.
    """
    from matplotlib.figure import Figure

    read = {label: _read(runs) for label, runs in runs_by_label.items()}
    kinds = [kind for kind in KINDS if any((split, kind) in curves for curves in read.values() for split in SPLITS)]
    kinds = kinds or ["loss"]  # a module that logs neither
    alone = len(read) == 1
    columns = len(read) if len(read) <= COLUMNS else math.ceil(len(read) / math.ceil(len(read) / COLUMNS))
    blocks = math.ceil(len(read) / columns)
    rows, columns = (1, len(kinds)) if alone else (blocks * len(kinds), columns)
    figure = Figure(figsize=(1 + 4 * columns, 1 + 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()  # unless something is drawn there
    for number, kind in enumerate(kinds):
        panels = {}
        for index, (label, curves) in enumerate(read.items()):
            block, column = (0, number) if alone else divmod(index, columns)
            axis = panels[label] = axes[block * len(kinds) + (0 if alone else number), column]
            _panel(axis, kind, curves, [other for name, other in read.items() if name != label])
            if alone or number == 0:
                title = "\n".join([*wrap(label, TITLE), f"({_run_counts(runs_by_label[label], curves)})"])
                axis.set_title(title, fontsize="medium")
        _same_scale(list(panels.values()), kind, list(read.values()))
    _legend(figure)
    return figure


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


def _panel(
    axis: "Axes", kind: str, found: Mapping[tuple[str, str], Curve], others: Sequence[Mapping[tuple[str, str], Curve]]
) -> None:
    axis.set_axis_on()
    for other in others:
        if ("val", kind) in other:
            epochs, means = zip(*((at, point.mean) for at, point in other["val", kind]), strict=True)
            axis.plot(epochs, means, color="0.75", linewidth=0.8, zorder=1, label="validation of the other panels")
    for split in SPLITS:
        _line(axis, split, found.get((split, kind), []))
    label_learning_curves(axis, kind)


def _line(axis: "Axes", split: str, curve: Curve) -> None:
    """Plot a mean with its band; without one where a single run is left."""
    if curve:
        epochs = [epoch for epoch, _ in curve]
        plot_learning_curve(axis, split, epochs, [point.mean for _, point in curve], [point.sd for _, point in curve])


def _same_scale(panels: "Sequence[Axes]", kind: str, read: Sequence[Mapping[tuple[str, str], Curve]]) -> None:
    """One scale for all panels of a kind; logarithmic for a loss that falls far."""
    means = [point.mean for found in read for (_, of), curve in found.items() if of == kind for _, point in curve]
    for panel in panels[1:]:
        panel.sharey(panels[0])
    if kind == "loss" and spans_decades(means):
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
