"""Figures of one run: learning curves, and the model's results on the test set. They can be read in black and white.

Shapes: N examples, C channels, H rows, W columns, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.plots import (
    LARGE_RATIO,
    OTHER,
    STYLES,
    Array,
    image_sheet,
    label_learning_curves,
    panels,
    plot_decision_regions,
    plot_learning_curve,
    scatter_classes,
    spans,
)
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.metric_names import split_of, without_split
from pipelines.tracking.measured import is_measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from datamodules.sets import TensorSet

MANY_CLASSES = 20  # a confusion matrix of more has no numbers
History = Sequence[tuple[int, dict[str, float]]]


@figure_style()
def learning_curves(history: History, selected_epoch: int) -> "Figure":
    """Plot each training and validation metric over the epochs, counted from 0, with the epoch that is tested."""
    names: dict[tuple[str, str], str] = {}
    for name in (name for _, metrics in history for name in metrics if is_measured(name)):
        names.setdefault((without_split(name), split_of(name) or OTHER), name)
    kinds = list(dict.fromkeys(kind for kind, split in names if split in STYLES))
    kinds = ["loss", *(kind for kind in kinds if kind != "loss")] if "loss" in kinds else kinds or ["loss"]
    figure, axes = panels(len(kinds), size=(5, 4), margins=(0.85, 0.15, 0.5, 0.15))
    for axis, kind in zip(axes, kinds, strict=True):
        drawn: list[float] = []
        for split in STYLES:
            name = names.get((kind, split), "")
            if points := [(epoch, metrics[name]) for epoch, metrics in history if name in metrics]:
                epochs, values = zip(*points, strict=True)
                plot_learning_curve(axis, split, epochs, values)
                drawn += values
        label_learning_curves(axis, kind)
        if kind.startswith("loss") and spans(LARGE_RATIO, drawn):
            axis.set_yscale("log")
        axis.axvline(selected_epoch, color="0.5", linewidth=1, linestyle=":", label="selected epoch")
        axis.legend()
    return figure


@figure_style()
def output_figures(inputs_N: NDArray[Any], outputs: Mapping[str, Array], classes: Sequence[str]) -> dict[str, "Figure"]:
    """Return the figures that suit a model's outputs for the test set, by name.

    Args:
        inputs_N: The test examples as they are in the data; images are uint8 and of shape (N, C, H, W).
        outputs: What the evaluation step returned, N of each: "logits" and "labels" of a classifier, "codes" and
            "reconstructions" of an autoencoder, "estimates" and "targets" of a regression.
        classes: Names, in the order of the labels.

    Returns:
        No figures if the outputs are those of a part of the test set, or there are none.
    """
    drawn: dict[str, Figure] = {}
    if not outputs or any(len(part) != len(inputs_N) for part in outputs.values()):
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
    """Plot each test example in the plane of its code, by class, with the name of the class at its median."""
    figure, (axis,) = panels(1, size=(7, 6), margins=(0.85, 0.15, 0.55, 0.4))
    scatter_classes(axis, codes_N2, labels_N, classes, size=4, percentiles=(1, 99))
    axis.set(xlabel="first number of the code", ylabel="second number of the code")
    axis.set_title(f"{len(codes_N2):,} test examples; the outermost few are beyond the frame")
    return figure


def reconstructions(images_NCHW: NDArray[np.uint8], decoded_NCHW: Array, count: int = 12) -> "Figure":
    """Show the first test images above their reconstructions."""
    images_NHWC = [*images_NCHW[:count] / 255, *decoded_NCHW[:count].clip(0, 1)]
    images_NHWC = [image_CHW.transpose(1, 2, 0) for image_CHW in images_NHWC]
    title = "test images, and the reconstruction of each from its code"
    return image_sheet(title, images_NHWC, min(count, len(images_NCHW)), size=0.92)


def estimates(estimates_NK: Array, targets_NK: Array) -> "Figure":
    """Plot estimate against true value, one panel for each function."""
    figure, axes = panels(targets_NK.shape[1], targets_NK.shape[1], size=(4, 4), margins=(0.75, 0.15, 0.5, 0.4))
    for number, axis in enumerate(axes):
        true_N, estimate_N = targets_NK[:, number], estimates_NK[:, number]
        axis.scatter(true_N, estimate_N, s=4, alpha=0.5, linewidths=0)
        axis.plot([true_N.min(), true_N.max()], [true_N.min(), true_N.max()], color="0.5", linestyle=":")
        error = float(np.square(estimate_N - true_N).mean())
        axis.set(xlabel=f"y{number}", ylabel="estimate", title=f"mean squared error {error:.2g}")
    return figure


@figure_style()
def decision_regions(
    maps: Mapping[str, Array],
    corners: tuple[float, float, float, float],
    test_set: "TensorSet",
    classes: Sequence[str] = ("0", "1"),
) -> "Figure":
    """Plot what a classifier predicts over the plane, a panel for each map by title; see `plot_decision_regions`."""
    figure, axes = panels(len(maps), len(maps), size=(4.2, 4.2), extra=(0.8, 0.3))
    for axis, (title, map_RC) in zip(axes, maps.items(), strict=True):
        shade = plot_decision_regions(axis, map_RC, corners, test_set, classes)
        axis.set_title(title)
    figure.colorbar(shade, ax=axes, shrink=0.75, label=f"probability of class {classes[1]}; black line: 0.5")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def confusion_matrix(labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """Plot counts of true class against predicted class; shades are fractions of the true class."""
    n_classes = len(classes)
    counts_KK = np.bincount(labels_N * n_classes + predicted_N, minlength=n_classes**2).reshape(n_classes, n_classes)
    longest = max(map(len, classes))
    left, bottom = 0.5 + 0.1 * longest, 0.5 + (0.1 * longest if longest > 2 else 0)
    figure, (axis,) = panels(1, size=(6, 5.5), margins=(left, 0.3, bottom, 0.35) if longest <= 12 else None)
    fractions_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    picture = axis.imshow(fractions_KK, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="fraction of the true class")
    axis.set(xlabel="predicted class", ylabel="true class", title=f"{len(labels_N):,} test examples")
    axis.set_xticks(range(n_classes), classes, rotation=90 if longest > 2 else 0)
    axis.set_yticks(range(n_classes), classes)
    if n_classes <= MANY_CLASSES:
        for row, column in np.argwhere(counts_KK):
            colour = "white" if fractions_KK[row, column] > 0.5 else "black"
            axis.text(column, row, counts_KK[row, column], ha="center", va="center", color=colour, fontsize=8)
    return figure


def confidently_wrong(
    images_NCHW: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    probabilities_NK: NDArray[np.float32],
    classes: Sequence[str],
    at_most: int = 24,
) -> "Figure":
    """Show the misclassified images with the highest probability of the wrong class, most confident first."""
    predicted_N, confidence_N = probabilities_NK.argmax(1), probabilities_NK.max(1)
    wrong = np.flatnonzero(predicted_N != labels_N)
    worst = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:at_most]
    labels = [f"{classes[predicted_N[one]]} ({confidence_N[one]:.2f})\ntrue: {classes[labels_N[one]]}" for one in worst]
    title = f"{len(wrong):,} of {len(labels_N):,} test images are misclassified; the most confident ones"
    return image_sheet(title, [*images_NCHW[worst].transpose(0, 2, 3, 1)], 6, size=1.45, labels=labels)
