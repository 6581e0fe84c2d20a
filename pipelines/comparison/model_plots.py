"""What finished networks show: the regions of the plane that they tell apart, and codes beside principal components.

Shapes: N examples of a set, D values of an example, R rows and C columns of a map.
"""

import math
from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray

from datamodules.base import InMemoryDataModule
from modules.metrics import KNNAccuracy
from pipelines.comparison.rows import Row
from pipelines.evaluation.decision_regions import Plane, is_plane
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.load_run import LoadedRun, load_run
from pipelines.evaluation.plots import plot_decision_regions, scatter_classes
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = 3  # panels side by side
TITLE = 40  # characters that a panel's title has room for, in a line
DRAWN = 1000  # examples that are drawn; more would hide one another
FRAME = (3, 97)  # percentiles that are well within the frame
Array = NDArray[np.float32]


def decision_regions(rows: Mapping[str, Row], store: Store) -> "Figure | None":
    """The probability of the second class over the plane, of each row's first run; the border black.

    Raises:
        UserError: A run's data or checkpoint are not to be found.
    """
    loaded = {label: _load(row.runs[0]) for label, row in rows.items()}
    models = {label: (run.model, run.data) for label, run in loaded.items() if is_plane(run.data)}
    if not models:
        return None
    figure, axes = _figure(len(models))
    for axis, (label, (model, data)) in zip(axes, models.items(), strict=False):
        plane = Plane(data)
        map_RC = plane.as_grid(_probabilities(model, plane))
        shade = plot_decision_regions(axis, map_RC, plane.corners, data.test_set, data.classes)
        first = rows[label].runs[0]
        accuracy = first.metrics.get("test/acc", math.nan)
        axis.set_title(_title(label, f"seed {first.seed}: test accuracy {accuracy:.3f}"), fontsize="medium")
    figure.colorbar(shade, ax=axes, shrink=0.5, label=f"probability of class {data.classes[1]}")
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
        run = _load(row.runs[0])
        data = run.data
        measured = evaluate("test", run.cli, run.model, data, run.checkpoint)
        accuracy, error = measured.metrics["test/knn_acc"], measured.metrics["test/loss"]
        title = _title(f"{label}, seed {row.runs[0].seed}", *_quality(accuracy, error))
        panels[title] = measured.outputs["codes"].float().numpy()
    assert isinstance(data, InMemoryDataModule)
    labels_N = data.test_set.targets.numpy()
    title, points_N2 = _principal_components(data)
    panels[title] = points_N2
    figure, axes = _figure(len(panels))
    for axis, (title, points_N2) in zip(axes, panels.items(), strict=False):
        scatter_classes(axis, points_N2, labels_N, data.classes, size=24, at_most=DRAWN, percentiles=FRAME)
        axis.set(xlabel="first number of the code", ylabel="second number of the code")
        axis.set_title(title, fontsize="medium")
    axes[len(panels) - 1].set(xlabel="first principal component", ylabel="second principal component")
    drawn = f"{min(DRAWN, len(labels_N)):,} of {len(labels_N):,} test images"
    figure.suptitle(
        f"{drawn}, names at the medians of the classes; the outermost lie beyond the frame", fontsize="medium"
    )
    return figure


def _load(run: StoredRun) -> LoadedRun:
    """Load a run with its data; nothing is downloaded for a figure."""
    loaded = load_run(run, ["--trainer.accelerator", "auto"], stages=("fit", "test"), download=False)
    if not loaded.has_recorded_data("test"):
        raise UserError(f"run {run.run_id}: this is not the test set that it was measured on")
    return loaded


def _probabilities(model: LightningModule, plane: Plane) -> torch.Tensor:
    """Of the second class, for each point of the plane."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        probabilities_N2: torch.Tensor = model(plane.points_N2.to(dtype)).float().softmax(1)
    return probabilities_N2[:, 1]


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
