"""The figures of a page: those of the comparison, and those that a run saved."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.comparison.figures import draw_figures, saved_figures
from pipelines.comparison.rows import Comparison
from pipelines.reporting.html_page import inline_figure, inline_png
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import StoredRun

if TYPE_CHECKING:
    from markupsafe import Markup

CAPTIONS = {
    "learning_curves": "Learning curves: mean over seeds ± one standard deviation",
    "against_cost": "{metric} against the number of parameters and the training time",
    "decision_regions": "Decision regions of the models",
    "codes": "Codes of test images, compared with their principal components",
    # Figures of a study, by sweeps.search.figures
    "history": "Value of each trial in the order of the search, and the best value so far",
    "slice": "Value of each trial against each searched key",
    "parallel_coordinate": "Trials as lines through the searched keys",
    "importance": "How much of the differences between trials each key explains",
    "configurations": "The best configurations: mean (diamond) and each seed (dot)",
}


@dataclass(frozen=True)
class Picture:
    """A figure as an element of the page, with its caption."""

    element: "Markup"
    caption: str


def comparison_pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """Draw the figures of a comparison.

    Returns:
        The figures, and one sentence for each that could not be drawn.
    """
    try:
        figures = draw_figures(comparison)
    except (UserError, OSError) as error:
        return [], [f"figures cannot be drawn: {error}"]
    pictures, missing = [], []
    for name, figure in figures.items():
        caption = _caption(name, comparison.metric)
        try:
            pictures.append(Picture(inline_figure(figure, name, caption), caption))
        except (ValueError, ArithmeticError, RuntimeError) as error:  # from matplotlib, because of a label
            missing.append(f"figure {name} cannot be drawn: {str(error).splitlines()[0]}")
    return pictures, missing


def saved_pictures(run: StoredRun) -> tuple[list[Picture], list[str]]:
    """Read the PNG figures that a run saved.

    Returns:
        The figures, and a sentence if there are none or one cannot be read.
    """
    pictures: list[Picture] = []
    try:
        for path in (path for path in saved_figures(run) if path.endswith(".png")):
            caption = _caption(path.rpartition("/")[2].removesuffix(".png"))
            pictures.append(Picture(inline_png(run.file(path).read_bytes(), caption), caption))
    except (UserError, OSError, ValueError) as error:
        return pictures, [f"figures of run {run.run_id} cannot be read: {str(error).splitlines()[0]}"]
    return pictures, [] if pictures else [f"run {run.run_id} has no figures"]


def _caption(name: str, metric: str = "") -> str:
    words = name.removeprefix("against_").replace("_", " ")
    caption = CAPTIONS.get(name, f"{{metric}} against {words}" if name.startswith("against_") else words)
    return caption.replace("{metric}", metric)
