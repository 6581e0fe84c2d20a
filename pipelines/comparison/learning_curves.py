"""Learning curves over seeds: mean and band, a panel for each configuration."""

import itertools
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from pipelines.comparison.intervals import Summary, summarize
from pipelines.evaluation.plots import label_learning_curves, plot_learning_curve, spans_decades
from pipelines.tracking.store import Store, StoredRun

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("loss", "acc")
SPLITS = ("train", "val")
COLUMNS = 3  # panels side by side
TITLE = 36  # characters that a panel's title has room for, in a line
Curve = list[tuple[int, Summary]]  # an epoch, and what the runs that still go on have there


def curves(runs_by_label: Mapping[str, Sequence[StoredRun]], store: Store) -> "Figure":
    """Loss and accuracy over the epochs, of training and validation: the mean over runs, and a standard deviation.

    Each label has a panel for each kind, all of a kind on the same scale, with the other labels' validation in grey.
    Where runs are of different length, the mean is of those that still go on.
    """
    from matplotlib.figure import Figure

    read = {label: _read(runs, store) for label, runs in runs_by_label.items()}
    kinds = [kind for kind in KINDS if any((split, kind) in found for found in read.values() for split in SPLITS)]
    kinds = kinds or ["loss"]  # a foreign module that logs neither
    alone = len(read) == 1
    columns = len(read) if len(read) <= COLUMNS else math.ceil(len(read) / math.ceil(len(read) / COLUMNS))
    blocks = math.ceil(len(read) / columns)
    rows, columns = (1, len(kinds)) if alone else (blocks * len(kinds), columns)
    figure = Figure(figsize=(1 + 4 * columns, 1 + 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()  # until something is drawn there
    for number, kind in enumerate(kinds):
        panels = {}
        for index, (label, found) in enumerate(read.items()):
            block, column = (0, number) if alone else divmod(index, columns)
            axis = panels[label] = axes[block * len(kinds) + (0 if alone else number), column]
            _panel(axis, kind, found, [other for name, other in read.items() if name != label])
            if alone or number == 0:
                title = "\n".join([*wrap(label, TITLE), f"({_counted(runs_by_label[label], found)})"])
                axis.set_title(title, fontsize="medium")
        _same_scale(list(panels.values()), kind, list(read.values()))
    _legend(figure)
    return figure


def _read(runs: Sequence[StoredRun], store: Store) -> dict[tuple[str, str], Curve]:
    """The curves by split and kind, of those metrics that the runs have."""
    found = {}
    for split, kind in itertools.product(SPLITS, KINDS):
        having = [run.run_id for run in runs if f"{split}/{kind}" in run.metrics]
        histories = [_history(store, run_id, f"{split}/{kind}") for run_id in having]
        epochs = sorted({epoch for history in histories for epoch in history})
        curve = [(at, summarize([history[at] for history in histories if at in history])) for at in epochs]
        if curve:
            found[split, kind] = curve
    return found


def _history(store: Store, run_id: str, metric: str) -> dict[int, float]:
    """Finite values by epoch; of an epoch that was measured twice, the latest."""
    points = sorted(store.client.get_metric_history(run_id, metric), key=lambda point: int(point.timestamp))
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


def _counted(runs: Sequence[StoredRun], found: Mapping[tuple[str, str], Curve]) -> str:
    """How many runs the means are of, and where they become fewer."""
    what = "seeds" if len({run.seed for run in runs}) == len(runs) else "runs"
    counts = [(at, point.n) for at, point in max(found.values(), key=len, default=[])]
    fewer = [f"{after} from epoch {at}" for (_, before), (at, after) in itertools.pairwise(counts) if after != before]
    text = f"n = {len(runs)} {what if len(runs) != 1 else what[:-1]}"
    return ", ".join([text, *fewer]) if len(fewer) <= 2 else f"{text}, {fewer[-1]}"


def _legend(figure: "Figure") -> None:
    """One for all panels, below them."""
    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    order = sorted(entries, key=lambda text: (text.startswith("validation"), "other panels" in text))
    figure.legend([entries[text] for text in order], order, loc="outside lower center", ncols=2, fontsize="small")
