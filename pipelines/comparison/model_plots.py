"""Plot what trained models do: decision regions, and codes next to principal components. Imports torch.

Shapes: N examples of a set, R rows and C columns of a map.
"""

import math
from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

import torch

from datamodules.in_memory import InMemoryDataModule
from pipelines.comparison.row import Row
from pipelines.evaluation import plots
from pipelines.evaluation.baseline import flat_arrays, measure_pca
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
    figure, axes = _panels(len(models))
    for axis, (label, (model, data)) in zip(axes, models.items(), strict=True):
        plane, dtype = Plane(data), next(model.parameters()).dtype
        with torch.no_grad():
            probabilities_N2: torch.Tensor = model(plane.points_N2.to(dtype)).float().softmax(1)
        map_RC = plane.as_grid(probabilities_N2[:, 1])
        shade = plots.plot_decision_regions(axis, map_RC, plane.corners, data.test_set, data.classes)
        run = rows[label].runs[0]
        accuracy = run.metrics.get("test/acc", math.nan)
        axis.set_title(_title(label, f"seed {run.seed}: test accuracy {accuracy:.3f}"), fontsize="medium")
    figure.colorbar(shade, ax=figure.axes, shrink=0.5, label=f"probability of class {data.classes[1]}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def plot_codes(rows: Mapping[str, Row]) -> "Figure":
    """Plot the codes of the test images, for the first run of each row, and their first two principal components.

    Rows on other data than the first row's are left out.

    Raises:
        UserError: The data or the checkpoint of a run are missing.
    """
    from sklearn.decomposition import PCA

    runs = {label: row.runs[0] for label, row in rows.items()}
    digest = next(iter(runs.values())).configuration.get(DATA_HASH_KEY)
    panels: dict[str, plots.Array] = {}
    for label, run in runs.items():
        if run.configuration.get(DATA_HASH_KEY) == digest:
            loaded = _load(run)
            assert isinstance(loaded.data, InMemoryDataModule)  # only of these does a run save a figure of its codes
            data = loaded.data
            tested = evaluate("test", loaded.cli, loaded.model, data, loaded.checkpoint)
            quality = _quality(tested.metrics["test/knn_acc"], tested.metrics["test/loss"])
            panels[_title(f"{label}, seed {run.seed}", *quality)] = tested.outputs["codes"].float().numpy()
    pca = PCA(2, random_state=0).fit(flat_arrays(data, "train")[0])
    components_N2, error, accuracy = measure_pca(pca, data, "test")
    panels[_title("two principal components", *_quality(accuracy, error))] = components_N2
    labels_N = data.test_set.targets.numpy()
    figure, axes = _panels(len(panels))
    for axis, (title, points_N2) in zip(axes, panels.items(), strict=True):
        plots.scatter_classes(axis, points_N2, labels_N, data.classes, size=24, at_most=MAX_POINTS, percentiles=FRAME)
        axis.set(xlabel="first number of the code", ylabel="second number of the code")
        axis.set_title(title, fontsize="medium")
    axes[-1].set(xlabel="first principal component", ylabel="second principal component")
    images = f"{min(MAX_POINTS, len(labels_N)):,} of {len(labels_N):,} test images"
    figure.suptitle(f"{images}, class names at the medians; outliers are beyond the frame", fontsize="medium")
    return figure


def _load(run: StoredRun) -> LoadedRun:
    """Load a run with its data. Nothing is downloaded for a figure."""
    loaded = load_run(run, ["--trainer.accelerator", "auto"], stages=("fit", "test"), download=False)
    if not loaded.has_recorded_data("test"):
        raise UserError(f"run {run.run_id}: the test set is not the one that it was tested on")
    return loaded


def _title(label: str, *lines: str) -> str:
    return "\n".join([*wrap(label, TITLE), *lines])


def _quality(accuracy: float, error: float) -> tuple[str, str]:
    return f"nearest neighbours' accuracy {accuracy:.3f}", f"reconstruction error {error:.4f}"


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure with so many panels, spread evenly over its rows."""
    columns = math.ceil(count / math.ceil(count / COLUMNS))
    return plots.panels(count, columns, size=(4.4, 4.4), extra=(0, 0.3))
