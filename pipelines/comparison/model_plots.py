"""Plot what trained models do: decision regions, and codes next to principal components. Imports torch.

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
from pipelines.evaluation import plots
from pipelines.evaluation.decision_regions import Plane, is_plane
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.load_run import LoadedRun, load_run
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = 3  # panels side by side
TITLE = 40  # characters in a line of a panel's title
MAX_POINTS = 1000  # examples in a panel; more would hide one another
FRAME = (3, 97)  # percentiles of the points that set the frame
Array = NDArray[np.float32]


def plot_decision_regions(rows: Mapping[str, Row]) -> "Figure | None":
    """Plot the probability of the second class over the plane, for the first run of each row; the border is black.

    Returns:
        The figure; None if no run classifies points in a plane.

    Raises:
        UserError: The data or the checkpoint of a run are missing.
    """
    loaded = {label: _load(row.runs[0]) for label, row in rows.items()}
    models = {label: (run.model, run.data) for label, run in loaded.items() if is_plane(run.data)}
    if not models:
        return None
    figure, axes = _figure(len(models))
    for axis, (label, (model, data)) in zip(axes, models.items(), strict=False):
        plane = Plane(data)
        map_RC = plane.as_grid(_probabilities(model, plane))
        shade = plots.plot_decision_regions(axis, map_RC, plane.corners, data.test_set, data.classes)
        run = rows[label].runs[0]
        accuracy = run.metrics.get("test/acc", math.nan)
        axis.set_title(_title(label, f"seed {run.seed}: test accuracy {accuracy:.3f}"), fontsize="medium")
    figure.colorbar(shade, ax=axes, shrink=0.5, label=f"probability of class {data.classes[1]}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def plot_codes(rows: Mapping[str, Row]) -> "Figure":
    """Plot the codes of the test images, for the first run of each row, and their first two principal components.

    Rows on other data than the first row's are left out.

    Raises:
        UserError: The data or the checkpoint of a run are missing.
    """
    runs = {label: row.runs[0] for label, row in rows.items()}
    digest = next(iter(runs.values())).configuration.get(DATA_HASH_KEY)
    panels: dict[str, Array] = {}
    for label, run in runs.items():
        if run.configuration.get(DATA_HASH_KEY) == digest:
            title, codes_N2, data = _encode_test_set(label, run)
            panels[title] = codes_N2
    title, components_N2 = _principal_components(data)
    panels[title] = components_N2
    labels_N = data.test_set.targets.numpy()
    figure, axes = _figure(len(panels))
    for axis, (title, points_N2) in zip(axes, panels.items(), strict=False):
        plots.scatter_classes(axis, points_N2, labels_N, data.classes, size=24, at_most=MAX_POINTS, percentiles=FRAME)
        axis.set(xlabel="first number of the code", ylabel="second number of the code")
        axis.set_title(title, fontsize="medium")
    axes[len(panels) - 1].set(xlabel="first principal component", ylabel="second principal component")
    images = f"{min(MAX_POINTS, len(labels_N)):,} of {len(labels_N):,} test images"
    figure.suptitle(f"{images}, class names at the medians; outliers are beyond the frame", fontsize="medium")
    return figure


def _encode_test_set(label: str, run: StoredRun) -> tuple[str, Array, InMemoryDataModule]:
    """Return a title, the codes of the test images, shape (N, 2), and the data."""
    loaded = _load(run)
    data = loaded.data
    assert isinstance(data, InMemoryDataModule)  # only of these does a run save a figure of its codes
    measured = evaluate("test", loaded.cli, loaded.model, data, loaded.checkpoint)
    quality = _quality(measured.metrics["test/knn_acc"], measured.metrics["test/loss"])
    codes_N2: Array = measured.outputs["codes"].float().numpy()
    return _title(f"{label}, seed {run.seed}", *quality), codes_N2, data


def _load(run: StoredRun) -> LoadedRun:
    """Load a run with its data. Nothing is downloaded for a figure."""
    loaded = load_run(run, ["--trainer.accelerator", "auto"], stages=("fit", "test"), download=False)
    if not loaded.has_recorded_data("test"):
        raise UserError(f"run {run.run_id}: the test set is not the one that it was tested on")
    return loaded


def _probabilities(model: LightningModule, plane: Plane) -> torch.Tensor:
    """Return the probability of the second class for each point of the plane, shape (N,)."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        probabilities_N2: torch.Tensor = model(plane.points_N2.to(dtype)).float().softmax(1)
    return probabilities_N2[:, 1]


def _principal_components(data: InMemoryDataModule) -> tuple[str, Array]:
    """Return a title, and the test images in two principal components of the training images, shape (N, 2)."""
    from sklearn.decomposition import PCA

    train_ND, test_ND = (_flat(data, part.inputs) for part in (data.train_set, data.test_set))
    pca = PCA(2, random_state=0).fit(train_ND)
    points_N2 = pca.transform(test_ND).astype(np.float32)
    neighbours = KNNAccuracy()
    neighbours.update(torch.from_numpy(points_N2), data.test_set.targets)
    error = float(np.square(pca.inverse_transform(points_N2) - test_ND).mean())
    return _title("two principal components", *_quality(float(neighbours.compute()), error)), points_N2


def _flat(data: InMemoryDataModule, images: torch.Tensor) -> Array:
    """Return normalised images, shape (N, D)."""
    normalised = images.float() if data.normalize is None else data.normalize(images)
    flat_ND: Array = normalised.flatten(1).numpy()
    return flat_ND


def _title(label: str, *lines: str) -> str:
    return "\n".join([*wrap(label, TITLE), *lines])


def _quality(accuracy: float, error: float) -> tuple[str, str]:
    return f"nearest neighbours' accuracy {accuracy:.3f}", f"reconstruction error {error:.4f}"


def _figure(panels: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure with at least so many axes, at most `COLUMNS` side by side; the other axes are off."""
    rows = math.ceil(panels / COLUMNS)
    columns = math.ceil(panels / rows)
    figure, axes = plots.make_figure(columns=columns, rows=rows, width=4.4 * columns, height=4.4 * rows + 0.3)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes
