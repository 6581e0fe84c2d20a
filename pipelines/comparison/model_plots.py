"""What finished networks show: the regions of the plane that they tell apart, and codes beside principal components.

Shapes: N examples of a set, D values of an example, R rows and C columns of a map.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.base import InMemoryDataModule
from modules.metrics import KNNAccuracy
from pipelines.comparison.rows import Row
from pipelines.evaluation.decision_regions import Plane, is_plane
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.load_run import LoadedRun, load_run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import DATA_HASH_KEY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


COLUMNS = 3  # panels side by side
TITLE = 40  # characters that a panel's title has room for, in a line
LETTERS = 1000  # examples that are drawn; more would hide one another
FRAME = (3, 97)  # percentiles that are well within the frame
Array = NDArray[np.float32]


def decision_regions(rows: Mapping[str, Row], store: Store) -> "Figure | None":
    """The probability of the second class over the plane, of each row's first run; the border black.

    Raises:
        UserError: A run's data or checkpoint are not to be found.
    """
    rebuilt = {label: load_run(row.runs[0]) for label, row in rows.items()}
    rebuilt = {label: run for label, run in rebuilt.items() if is_plane(run.data)}
    if not rebuilt:
        return None
    figure, axes = _figure(len(rebuilt))
    for axis, (label, run) in zip(axes, rebuilt.items(), strict=False):
        plane = Plane(run.data)
        shade = _regions(axis, plane.as_map(_probabilities(run, plane)), plane, run.data)
        first = rows[label].runs[0]
        accuracy = first.metrics.get("test/acc", math.nan)
        axis.set_title(_title(label, f"seed {first.seed}: test accuracy {accuracy:.3f}"), fontsize="medium")
    figure.colorbar(shade, ax=axes, shrink=0.5, label=f"probability of class {run.data.classes[1]}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def codes(rows: Mapping[str, Row], store: Store) -> "Figure | None":
    """Codes of the test images, of each row's first run, beside their first two principal components.

    Rows of other data than the first row's are left out.

    Raises:
        UserError: A run's data or checkpoint are not to be found.
    """
    digest = next(iter(rows.values())).runs[0].configuration.get(DATA_HASH_KEY)
    alike = {label: row for label, row in rows.items() if row.runs[0].configuration.get(DATA_HASH_KEY) == digest}
    panels: dict[str, Array] = {}
    for label, row in alike.items():
        run = load_run(row.runs[0])
        measured = evaluate("test", run.cli, run.model, run.data, run.checkpoint)
        accuracy, error = measured.metrics["test/knn_acc"], measured.metrics["test/loss"]
        title = _title(f"{label}, seed {row.runs[0].seed}", *_quality(accuracy, error))
        panels[title] = measured.outputs["codes"].float().numpy()
    labels_N = run.data.test_set.targets.numpy()
    title, points_N2 = _principal_components(run.data)
    panels[title] = points_N2
    figure, axes = _figure(len(panels))
    for axis, (title, points_N2) in zip(axes, panels.items(), strict=False):
        _letters(axis, points_N2, labels_N, run.data.classes)
        axis.set(xlabel="first number of the code", ylabel="second number of the code")
        axis.set_title(title, fontsize="medium")
    axes[len(panels) - 1].set(xlabel="first principal component", ylabel="second principal component")
    drawn = f"{min(LETTERS, len(labels_N)):,} of {len(labels_N):,} test images"
    figure.suptitle(
        f"{drawn}, names at the medians of the classes; the outermost lie beyond the frame", fontsize="medium"
    )
    return figure


def _probabilities(run: LoadedRun, plane: Plane) -> torch.Tensor:
    """Of the second class, for each point of the plane."""
    dtype = next(run.model.parameters()).dtype
    with torch.no_grad():
        probabilities_N2: torch.Tensor = run.model(plane.points_N2.to(dtype)).float().softmax(1)
    return probabilities_N2[:, 1]


def _regions(axis: "Axes", map_RC: Array, plane: Plane, data: InMemoryDataModule) -> "AxesImage":
    shade = axis.imshow(map_RC, extent=plane.corners, origin="lower", cmap="cividis", vmin=0, vmax=1)
    if map_RC.min() < 0.5 < map_RC.max():  # matplotlib warns where there is no border to draw
        axis.contour(map_RC, levels=[0.5], extent=plane.corners, colors="black", linewidths=1.5)
    points_N2, labels_N = data.test_set.inputs.numpy(), data.test_set.targets.numpy()
    for number, marker, face in ((0, "o", "white"), (1, "s", "black")):
        x, y = points_N2[labels_N == number].T
        name = f"test points of class {data.classes[number]}"
        axis.scatter(x, y, s=12, marker=marker, color=face, edgecolors="black", lw=0.5, label=name)
    axis.set(xlabel="x1", ylabel="x2")
    return shade


def _principal_components(data: InMemoryDataModule) -> tuple[str, Array]:
    """A title, and the test images in the first two principal components of the training images, shape (N, 2)."""
    from sklearn.decomposition import PCA

    train_ND, test_ND = (_flat(data, part.inputs) for part in (data.train_set, data.test_set))
    pca = PCA(2, random_state=0).fit(train_ND)
    points_N2 = pca.transform(test_ND).astype(np.float32)
    neighbours = KNNAccuracy()
    neighbours.update(torch.from_numpy(points_N2), data.test_set.targets)
    error = float(np.square(pca.inverse_transform(points_N2) - test_ND).mean())
    return _title("two principal components", *_quality(float(neighbours.compute()), error)), points_N2


def _flat(data: InMemoryDataModule, images: torch.Tensor) -> Array:
    """Normalised images, shape (N, D)."""
    normalised = images.float() if data.normalize is None else data.normalize(images)
    flat_ND: Array = normalised.flatten(1).numpy()
    return flat_ND


def _title(label: str, *lines: str) -> str:
    return "\n".join([*wrap(label, TITLE), *lines])


def _quality(accuracy: float, error: float) -> tuple[str, str]:
    return f"nearest neighbours' accuracy {accuracy:.3f}", f"reconstruction error {error:.4f}"


def _letters(axis: "Axes", points_N2: Array, labels_N: NDArray[np.int64], classes: Sequence[str]) -> None:
    """The first examples, each as the name of its class if that is short, and each class's name at its median."""
    for number, name in enumerate(classes):
        these_N2 = points_N2[labels_N == number]
        drawn_N2 = points_N2[:LETTERS][labels_N[:LETTERS] == number]
        if not len(these_N2):
            continue
        marker = f"${name}$" if len(name) == 1 else "o"
        axis.scatter(
            drawn_N2[:, 0], drawn_N2[:, 1], s=24, marker=marker, color=f"C{number % 10}", lw=0.2, alpha=0.9, label=name
        )
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": f"C{number % 10}", "pad": 1.5}
        x, y = np.median(these_N2, axis=0)
        axis.text(x, y, name, ha="center", va="center", bbox=box, weight="bold", clip_on=True)
    (left, lower), (right, upper) = np.percentile(points_N2, FRAME, axis=0)
    axis.set_xlim(left - 0.1 * (right - left), right + 0.1 * (right - left))
    axis.set_ylim(lower - 0.1 * (upper - lower), upper + 0.1 * (upper - lower))


def _figure(panels: int) -> "tuple[Figure, list[Axes]]":
    """As many panels, a few in a row, of which the last may be left empty."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / COLUMNS)
    columns = math.ceil(panels / rows)
    figure = Figure(figsize=(4.4 * columns, 4.4 * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes
