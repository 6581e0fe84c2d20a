"""Plots that several rooms draw: learning curves, decision regions, examples of classes in the plane.

They draw on an axis that the caller gives, and can be read in black and white. Shapes: N points, R rows and C columns.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.figure_style import COLOURS, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from datamodules.sets import TensorSet

OTHER = "other"  # of metrics whose names tell no split
STYLES = {
    "train": (COLOURS[0], "--", "o"),
    "train_end": (COLOURS[2], "-.", "^"),
    "val": (COLOURS[1], "-", "s"),
    OTHER: (COLOURS[3], "-", "D"),
}
LABELS = {
    "train": "training (average over the epoch)",
    "train_end": "training (weights of the epoch's end)",
    "val": "validation",
    OTHER: "in this epoch",
}
METRIC_NAMES = {  # {} is the place of a remark
    "acc": "accuracy (fraction{})",
    "knn_acc": "accuracy of the nearest codes' vote (fraction{})",
}
MARKERS = "o^sDvP*X<>"
MANY_EPOCHS = 40  # more are drawn without markers
LARGE_RATIO = 100  # values whose largest and smallest differ by more are drawn on a logarithmic scale
Array = NDArray[np.float32]


@figure_style()
def panels(
    count: int,
    columns: int = 3,
    *,
    size: tuple[float, float],
    extra: tuple[float, float] = (0.0, 0.0),
    margins: tuple[float, float, float, float] | None = None,
    **options: Any,
) -> "tuple[Figure, list[Axes]]":
    """Return a figure with a grid of panels, and the axes of the panels, row by row.

    Args:
        count: Number of panels; the rest of the last row stays blank.
        columns: Maximum number of panels in a row.
        size: Width and height of a panel with its labels, in inches.
        extra: Width at the right of all panels and height below them, such as for a legend.
        margins: Left, right, bottom and top of each panel, in inches, if the size of its labels is known. By default
            they are computed when the figure is drawn (constrained layout), which takes half as long as drawing it.
        options: Passed to `Figure.subplots`, such as `sharey`.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    columns = min(count, columns)
    rows = math.ceil(count / columns)
    width, height = columns * size[0] + extra[0], rows * size[1] + extra[1]
    figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    if margins:
        left, right, bottom, top = margins
        figure.subplots_adjust(
            left=left / width,
            bottom=(bottom + extra[1]) / height,
            right=1 - (right + extra[0]) / width,
            top=1 - top / height,
            wspace=(left + right) / (size[0] - left - right),
            hspace=(bottom + top) / (size[1] - bottom - top),
        )
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


@figure_style()
def image_sheet(
    title: str, images: Sequence[NDArray[Any]], columns: int, *, size: float, labels: Sequence[str] = ()
) -> "Figure":
    """Draw images row by row, in one axis: an axis for each would take four times as long.

    Args:
        title: Title of the figure.
        images: All of one shape, (H, W, 1) or (H, W, 3); uint8, or floats from 0 to 1.
        columns: Number of images in a row.
        size: Width of an image, in inches.
        labels: Up to two lines of text above each image.
    """
    from matplotlib.figure import Figure

    tall = size * images[0].shape[0] / images[0].shape[1] if len(images) else size
    gap = 0.08 * size
    top = gap + 0.16 * max((label.count("\n") + 1 for label in labels), default=0)
    rows = max(1, math.ceil(len(images) / columns))
    width, height = columns * (size + gap) + gap, rows * (tall + top) + gap
    figure = Figure(figsize=(width, height + 0.4))
    figure.suptitle(title, y=1 - 0.1 / (height + 0.4), va="top")
    axis = figure.add_axes((0, 0, 1, height / (height + 0.4)))
    for index, image_HWC in enumerate(images):
        row, column = divmod(index, columns)
        x, y = gap + column * (size + gap), top + row * (tall + top)  # of the upper left corner, in inches
        most = 255 if image_HWC.dtype == np.uint8 else 1
        axis.imshow(image_HWC, cmap="gray", vmin=0, vmax=most, extent=(x, x + size, y + tall, y))
        if labels:
            axis.text(x + size / 2, y - 0.04, labels[index], ha="center", va="bottom", fontsize=9)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    return figure


def plot_learning_curve(
    axis: "Axes", split: str, epochs: Sequence[int], values: Sequence[float], sds: Sequence[float | None] = ()
) -> None:
    """Plot a metric over the epochs, in the style of its split, a key of `STYLES`.

    Values are means if there are standard deviations, which are drawn as a band; None where only one run is left.
    """
    colour, line, marker = STYLES[split]
    marker = marker if len(epochs) <= MANY_EPOCHS else ""
    axis.plot(epochs, values, color=colour, linestyle=line, marker=marker, markersize=3.5, label=LABELS[split])
    if any(sd is not None for sd in sds):
        spread = [math.nan if sd is None else sd for sd in sds]
        low, high = ([value + sign * sd for value, sd in zip(values, spread, strict=True)] for sign in (-1, 1))
        band = f"{LABELS[split].partition(' (')[0]}: mean ± 1 standard deviation over runs"
        axis.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0, label=band)


def label_learning_curves(axis: "Axes", kind: str) -> None:
    """Label the axes of learning curves of a metric, such as "loss" or "acc", and draw a grid."""
    from matplotlib.ticker import MaxNLocator

    axis.set(xlabel="epoch (from 0)", ylabel=METRIC_NAMES.get(kind, kind.replace("_", " ")).format(""))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def spans(ratio: float, values: Sequence[float]) -> bool:
    """Return whether positive values span more than this factor, so that a logarithmic scale suits them."""
    return bool(values) and min(values) > 0 and max(values) > ratio * min(values)


def plot_decision_regions(
    axis: "Axes",
    map_RC: Array,
    corners: tuple[float, float, float, float],
    test_set: "TensorSet",
    classes: Sequence[str] = ("0", "1"),
) -> "AxesImage":
    """Plot what a classifier predicts over the plane, the border in black, with the test points.

    Args:
        axis: Gets entries for a legend: the test points of each class.
        map_RC: Probability, or decision, of the second class, from the lower left corner.
        corners: Left, right, lower, upper end of the map.
        test_set: Points of shape (N, 2) and their classes, 0 or 1.
        classes: Names of the two classes.

    Returns:
        The map, for a colour bar.
    """
    shade = axis.imshow(map_RC, extent=corners, origin="lower", cmap="cividis", vmin=0, vmax=1)
    if map_RC.min() < 0.5 < map_RC.max():  # matplotlib warns where there is no border to draw
        axis.contour(map_RC, levels=[0.5], extent=corners, colors="black", linewidths=1.5)
    points_N2, labels_N = test_set.inputs.numpy(), test_set.targets.numpy()
    for number, marker, face in ((0, "o", "white"), (1, "s", "black")):
        x, y = points_N2[labels_N == number].T
        name = f"test points of class {classes[number]}"
        axis.scatter(x, y, s=12, marker=marker, color=face, edgecolors="black", lw=0.5, label=name)
    axis.set(xlabel="x1", ylabel="x2")
    return shade


def scatter_classes(
    axis: "Axes",
    points_N2: Array,
    labels_N: NDArray[np.int64],
    classes: Sequence[str],
    *,
    size: float = 8,
    at_most: int | None = None,
    percentiles: tuple[float, float] | None = None,
) -> None:
    """Plot points by class, with a colour and a marker for each class and its name at the median of all its points.

    Args:
        axis: Gets an entry for a legend for each class.
        points_N2: Such as codes or principal components.
        labels_N: Class of each point.
        classes: Names, in the order of the labels; those without points are left out.
        size: Area of a marker in square points. From 20 on, a class with a name of one character is drawn as that.
        at_most: Draw only the first points, where more would hide one another.
        percentiles: End the frame a tenth beyond these percentiles of the points: outliers do not set the scale.
    """
    present = [number for number in range(len(classes)) if (labels_N == number).any()]
    for number in present:
        x, y = points_N2[:at_most][labels_N[:at_most] == number].T
        marker = MARKERS[(number // 10 if len(classes) > 10 else number) % len(MARKERS)]  # colours repeat after ten
        if size >= 20 and len(classes[number]) == 1:
            marker = f"${classes[number]}$"
        axis.scatter(x, y, s=size, marker=marker, color=COLOURS[number % 10], alpha=0.7, lw=0.2, label=classes[number])
    for number in present:  # above all points
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": COLOURS[number % 10], "pad": 1.5}
        x, y = np.median(points_N2[labels_N == number], axis=0)
        axis.text(x, y, classes[number], ha="center", va="center", fontsize="small", bbox=box, clip_on=True)
    if percentiles is not None:
        (left, lower), (right, upper) = np.percentile(points_N2, percentiles, axis=0)
        axis.set_xlim(left - 0.1 * (right - left), right + 0.1 * (right - left))
        axis.set_ylim(lower - 0.1 * (upper - lower), upper + 0.1 * (upper - lower))
