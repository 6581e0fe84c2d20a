"""The figures of a run, as matplotlib figures that can be read in black and white.

Shapes: N examples, C channels, H rows, W columns, K classes.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"train": ("C0", "--", "o"), "val": ("C1", "-", "s")}
NAMES = {"acc": "accuracy", "loss": "loss"}
MANY_EPOCHS = 40
MANY_CLASSES = 20


def learning_curves(history: Sequence[tuple[int, dict[str, float]]], selected_epoch: int) -> "Figure":
    """Loss and accuracy of training and validation over the epochs, with the epoch whose weights were selected."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(columns=2, width=10, height=4)
    for axis, kind in zip(axes, ("loss", "acc"), strict=True):
        for split, (colour, line, marker) in STYLES.items():
            points = [(epoch, metrics[f"{split}/{kind}"]) for epoch, metrics in history if f"{split}/{kind}" in metrics]
            if points:
                x, y = zip(*points, strict=True)
                marker = marker if len(x) <= MANY_EPOCHS else ""
                axis.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=4, label=_LABELS[split])
        axis.axvline(selected_epoch, color="0.5", linewidth=1, linestyle=":", label="selected epoch")
        axis.set(xlabel="epoch (from 0)", ylabel=NAMES[kind])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


_LABELS = {"train": "training (average over the epoch)", "val": "validation"}


def confusion_matrix(labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """Counts of true class against predicted class; shades are fractions of the true class."""
    from sklearn.metrics import confusion_matrix as count

    counts_KK = count(labels_N, predicted_N, labels=range(len(classes)))
    figure, (axis,) = _figure(columns=1, width=6, height=5.5)
    fractions_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    picture = axis.imshow(fractions_KK, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="fraction of the true class")
    axis.set(xlabel="predicted class", ylabel="true class", title=f"{len(labels_N):,} test examples")
    axis.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(len(classes)), classes)
    if len(classes) <= MANY_CLASSES:
        for (row, column), count_here in np.ndenumerate(counts_KK):
            colour = "white" if fractions_KK[row, column] > 0.5 else "black"
            axis.text(
                column, row, str(count_here) if count_here else "", ha="center", va="center", color=colour, fontsize=8
            )
    return figure


def confidently_wrong(
    images_NCHW: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    probabilities_NK: NDArray[np.float32],
    classes: Sequence[str],
    at_most: int = 24,
) -> "Figure":
    """The misclassified images with the highest probability of the wrong class, most confident first."""
    predicted_N, confidence_N = probabilities_NK.argmax(1), probabilities_NK.max(1)
    wrong = np.flatnonzero(predicted_N != labels_N)
    worst = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:at_most]
    columns = 6
    rows = max(1, math.ceil(len(worst) / columns))
    figure, axes = _figure(columns=columns, rows=rows, width=1.6 * columns, height=1.9 * rows)
    figure.suptitle(f"{len(wrong):,} of {len(labels_N):,} test images are misclassified; the most confident ones")
    for axis in axes:
        axis.set_axis_off()
    for axis, index in zip(axes, worst, strict=False):
        pixels_HWC = images_NCHW[index].transpose(1, 2, 0)
        axis.imshow(pixels_HWC.squeeze(2) if pixels_HWC.shape[2] == 1 else pixels_HWC, cmap="gray", vmin=0, vmax=255)
        said, true = classes[predicted_N[index]], classes[labels_N[index]]
        axis.set_title(f"{said} ({confidence_N[index]:.2f})\ntrue: {true}", fontsize=9)
    return figure


def _figure(*, columns: int, width: float, height: float, rows: int = 1) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)
