"""The figures of a run, as matplotlib figures that can be read in black and white.

Shapes: N examples, C channels, H rows, W columns, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from datamodules.sets import TensorSet

STYLES = {"train": ("C0", "--", "o"), "train_end": ("C2", "-.", "^"), "val": ("C1", "-", "s")}
LABELS = {
    "train": "training (average over the epoch)",
    "train_end": "training (weights of the epoch's end)",
    "val": "validation",
}
NAMES = {"acc": "accuracy", "loss": "loss", "knn_acc": "accuracy of the nearest codes' vote"}
MANY_EPOCHS = 40
MANY_CLASSES = 20
MANY_FOLD = 100  # a loss that falls so far is drawn on a logarithmic scale
Array = NDArray[np.float32]


def learning_curves(history: Sequence[tuple[int, dict[str, float]]], selected_epoch: int) -> "Figure":
    """Each metric over the epochs, of training and validation, with the epoch whose weights were selected."""
    from matplotlib.ticker import MaxNLocator

    names = [name for _, metrics in history for name in metrics if name.partition("/")[0] in STYLES]
    kinds = list(dict.fromkeys(["loss", *(name.partition("/")[2] for name in names)]))
    columns = min(len(kinds), 3)
    rows = math.ceil(len(kinds) / columns)
    figure, axes = _figure(columns=columns, rows=rows, width=5 * columns, height=4 * rows)
    for axis, kind in zip(axes, kinds, strict=False):
        for split, (colour, line, marker) in STYLES.items():
            points = [(epoch, metrics[f"{split}/{kind}"]) for epoch, metrics in history if f"{split}/{kind}" in metrics]
            if points:
                x, y = zip(*points, strict=True)
                marker = marker if len(x) <= MANY_EPOCHS else ""
                axis.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=4, label=LABELS[split])
        axis.axvline(selected_epoch, color="0.5", linewidth=1, linestyle=":", label="selected epoch")
        axis.set(xlabel="epoch (from 0)", ylabel=NAMES.get(kind, kind.replace("_", " ")))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        heights = [value for line in axis.lines[:-1] for value in np.asarray(line.get_ydata(), dtype=float)]
        if kind.startswith("loss") and heights and min(heights) > 0 and max(heights) > MANY_FOLD * min(heights):
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    for axis in axes[len(kinds) :]:
        axis.set_axis_off()
    return figure


def of_outputs(inputs_N: NDArray[Any], outputs: Mapping[str, Array], classes: Sequence[str]) -> dict[str, "Figure"]:
    """The figures that suit what a module says of the test set: logits of classes, codes, estimates.

    Args:
        inputs_N: The test examples as they are in the data; images are uint8 and of shape (N, C, H, W).
        outputs: What the module returns for them, by name, N of each.
        classes: Names, in the order of the labels.
    """
    drawn: dict[str, Figure] = {}
    if not outputs or any(len(part) != len(inputs_N) for part in outputs.values()):  # a part of the test set, or none
        return drawn
    if "logits" in outputs:
        labels_N = outputs["labels"].astype(np.int64)
        exponentials_NK = np.exp(outputs["logits"] - outputs["logits"].max(1, keepdims=True))
        probabilities_NK = exponentials_NK / exponentials_NK.sum(1, keepdims=True)
        drawn["confusion_matrix"] = confusion_matrix(labels_N, probabilities_NK.argmax(1), classes)
        if inputs_N.ndim == 4:
            drawn["confidently_wrong"] = confidently_wrong(inputs_N, labels_N, probabilities_NK, classes)
    if "codes" in outputs and outputs["codes"].shape[1] == 2:
        drawn["codes"] = codes(outputs["codes"], outputs["labels"].astype(np.int64), classes)
    if "reconstructions" in outputs:
        drawn["reconstructions"] = reconstructions(inputs_N, outputs["reconstructions"])
    if "estimates" in outputs:
        drawn["estimates"] = estimates(outputs["estimates"], outputs["targets"])
    return drawn


def codes(codes_N2: Array, labels_N: NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """Where each example lies in the plane, its class as colour and, at the class's median, as text."""
    figure, (axis,) = _figure(columns=1, width=7, height=6)
    for number in range(len(classes)):
        points_N2 = codes_N2[labels_N == number]
        if len(points_N2):
            axis.scatter(points_N2[:, 0], points_N2[:, 1], s=3, alpha=0.5, color=f"C{number % 10}", linewidths=0)
    for number, name in enumerate(classes):  # over all points
        if (labels_N == number).any():
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": f"C{number % 10}", "pad": 1.5}
            x, y = np.median(codes_N2[labels_N == number], axis=0)
            axis.text(x, y, name, ha="center", va="center", bbox=box)
    (left, lower), (right, upper) = np.percentile(codes_N2, [1, 99], axis=0)
    axis.set_xlim(left - 0.1 * (right - left), right + 0.1 * (right - left))
    axis.set_ylim(lower - 0.1 * (upper - lower), upper + 0.1 * (upper - lower))
    axis.set(xlabel="first number of the code", ylabel="second number of the code")
    axis.set_title(f"{len(codes_N2):,} test examples; the outermost few are beyond the frame")
    return figure


def reconstructions(images_NCHW: NDArray[np.uint8], again_NCHW: Array, count: int = 12) -> "Figure":
    """The first test images, above what comes back of them."""
    count = min(count, len(images_NCHW))
    figure, axes = _figure(columns=count, rows=2, width=count, height=2.3)
    for axis, image_CHW in zip(axes, [*images_NCHW[:count] / 255, *again_NCHW[:count].clip(0, 1)], strict=True):
        axis.imshow(image_CHW.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
    figure.suptitle("test images, and what the code of each gives back")
    return figure


def estimates(estimates_NK: Array, targets_NK: Array) -> "Figure":
    """Estimate against true value, one panel for each function."""
    figure, axes = _figure(columns=targets_NK.shape[1], width=4 * targets_NK.shape[1], height=4)
    for number, axis in enumerate(axes):
        true_N, said_N = targets_NK[:, number], estimates_NK[:, number]
        axis.scatter(true_N, said_N, s=4, alpha=0.5, linewidths=0)
        axis.plot([true_N.min(), true_N.max()], [true_N.min(), true_N.max()], color="0.5", linestyle=":")
        error = float(np.square(said_N - true_N).mean())
        axis.set(xlabel=f"y{number}", ylabel="estimate", title=f"mean squared error {error:.2g}")
    return figure


def decision_regions(
    maps: Mapping[str, Array], corners: tuple[float, float, float, float], test_set: "TensorSet"
) -> "Figure":
    """What a classifier says of the plane, first class (0) to second (1), a panel a map, with the test points.

    Args:
        maps: Title to probabilities, or decisions, of shape (rows, columns), from the lower left corner.
        corners: Left, right, lower, upper end of the maps.
        test_set: Points and their classes, 0 or 1, to draw over them.
    """
    points_N2, labels_N = test_set.inputs.numpy(), test_set.targets.numpy()
    figure, axes = _figure(columns=len(maps), width=4.6 * len(maps), height=4.4)
    for axis, (title, map_RC) in zip(axes, maps.items(), strict=True):
        axis.imshow(map_RC, extent=corners, origin="lower", cmap="RdBu", vmin=0, vmax=1, alpha=0.6)
        if map_RC.min() < 0.5 < map_RC.max():  # matplotlib warns where there is no border to draw
            axis.contour(map_RC, levels=[0.5], extent=corners, colors="black", linewidths=1)
        for label, marker, colour in ((0, "o", "C3"), (1, "s", "C0")):
            x, y = points_N2[labels_N == label].T
            axis.scatter(x, y, s=9, marker=marker, color=colour, edgecolors="white", lw=0.3)
        axis.set(title=title, xlabel="x1", ylabel="x2")
    return figure


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
