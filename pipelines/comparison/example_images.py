"""Draw the test images that one run classifies correctly and another does not. Imports torch."""

from typing import TYPE_CHECKING

import numpy as np

from datamodules.in_memory import InMemoryDataModule
from pipelines.comparison.examples import ExampleComparison
from pipelines.evaluation.load_run import load_run
from pipelines.evaluation.plots import image_sheet
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_MOST = 24  # images in a figure
COLUMNS = 6


@figure_style()
def example_figures(compared: ExampleComparison) -> "dict[str, Figure]":
    """Draw the images that only A and that only B classifies correctly, the most confident mistakes first.

    Raises:
        UserError: The data are not images in memory, are missing, or are not those of the test.
    """
    run = compared.runs[0]
    loaded = load_run(run, stages=("test",), download=False, weights=False)
    data = loaded.data
    if not isinstance(data, InMemoryDataModule) or data.test_set.inputs.ndim != 4:
        raise UserError(f"run {run.run_id}: only images of litlab's own data modules can be shown")
    if not loaded.has_recorded_data("test"):
        raise UserError(f"run {run.run_id}: the test set is not the one that it was tested on")
    images_NHWC = data.test_set.inputs.numpy().transpose(0, 2, 3, 1)
    figures = {}
    for right, wrong, name in ((0, 1, "only_A_right"), (1, 0, "only_B_right")):
        indices = compared.where(right == 0, right == 1)
        mistaken = compared.predictions[wrong]
        order = np.argsort(-np.nan_to_num(mistaken.probabilities_N[indices]), kind="stable")
        shown = indices[order][:AT_MOST]
        labels = [_label(compared, int(index), wrong) for index in shown]
        letters = "AB"
        title = f"{len(indices):,} test images that {letters[right]} classifies correctly and {letters[wrong]} does not"
        if len(shown):
            figures[name] = image_sheet(title, list(images_NHWC[shown]), COLUMNS, size=1.45, labels=labels)
    return figures


def _label(compared: ExampleComparison, index: int, wrong: int) -> str:
    mistaken = compared.predictions[wrong]
    predicted, true = (mistaken.name(int(labels[index])) for labels in (mistaken.predicted_N, mistaken.targets_N))
    probability = mistaken.probabilities_N[index]
    confidence = "" if np.isnan(probability) else f" ({probability:.2f})"
    return f"{'AB'[wrong]}: {predicted}{confidence}\ntrue: {true}, no. {index}"
