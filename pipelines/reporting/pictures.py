"""The figures of a page: those of the comparison, and those that a run saved.

A picture has the keys `source` (a data URI, as which an SVG cannot reach into the page), `caption`, and `width` in CSS
pixels.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipelines.comparison.figures import draw_figures, save_svg, saved_figures
from pipelines.comparison.rows import Comparison
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.text import first_line
from pipelines.tracking.store import StoredRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SVG = 500_000  # characters; a larger figure, such as one of many points, becomes a PNG
DPI = 150
SAVED_DPI = 120  # of a saved figure that does not tell
METRES_PER_INCH = 0.0254
PIXELS_PER_INCH = 96  # of CSS
CAPTIONS = {
    "learning_curves": "Learning curves: mean over seeds ± one standard deviation",
    "against_cost": "{metric} against the number of parameters and the training time",
    "confusion_matrix": "Confusion matrix: test examples by true and predicted class",
    "confidently_wrong": "Misclassified test images, the most confident ones",
    "decision_regions": "Decision regions of the models",
    "codes": "Codes of test images, compared with their principal components",
    # Figures of a study, by sweeps.search.figures
    "history": "Value of each trial in the order of the search, and the best value so far",
    "slice": "Value of each trial against each searched key",
    "parallel_coordinate": "Trials as lines through the searched keys",
    "importance": "How much of the differences between trials each key explains",
    "configurations": "The best configurations: mean (diamond) and each seed (dot)",
}
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that a label may contain but XML may not
Picture = dict[str, Any]


def comparison_pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """Draw the figures of a comparison.

    Returns:
        The pictures, and one sentence for each that could not be drawn.
    """
    try:
        figures = draw_figures(comparison)
    except (UserError, OSError) as error:
        return [], [f"figures cannot be drawn: {error}"]
    pictures, missing = [], []
    for name, figure in figures.items():
        try:
            kind, content = _draw(figure, name)
            width = PIXELS_PER_INCH * figure.get_figwidth()
            pictures.append(_picture(kind, content, width, _caption(name, comparison.metric)))
        except (ValueError, ArithmeticError, RuntimeError) as error:  # from matplotlib, because of a label
            missing.append(f"figure {name} cannot be drawn: {first_line(error)}")
    return pictures, missing


def saved_pictures(run: StoredRun, names: Sequence[str] = ()) -> tuple[list[Picture], list[str]]:
    """Read the PNG figures that a run saved.

    Args:
        run: The run.
        names: The figures, in this order; all if there are none.

    Returns:
        The pictures, and a sentence if there are none or one cannot be read.
    """
    pictures: list[Picture] = []
    try:
        paths = {PurePosixPath(path).stem: path for path in saved_figures(run) if path.endswith(".png")}
        for name, path in ((name, paths[name]) for name in (names or paths) if name in paths):
            content = run.file(path).read_bytes()
            pictures.append(_picture("png", content, _width(content), _caption(name)))
    except (UserError, OSError) as error:
        return pictures, [f"figures of run {run.run_id} cannot be read: {first_line(error)}"]
    return pictures, [] if pictures else [f"run {run.run_id} has no figures"]


def _width(content: bytes) -> float:
    """Return the width of a PNG in CSS pixels."""
    pixels = int.from_bytes(content[16:20], "big")  # the header comes first
    start = content.find(b"pHYs", 0, 1000)  # pixels per metre
    per_metre = int.from_bytes(content[start + 4 : start + 8], "big") if start > 0 else 0
    return pixels * PIXELS_PER_INCH / (per_metre * METRES_PER_INCH or SAVED_DPI)


def _draw(figure: "Figure", name: str) -> tuple[str, bytes]:
    """Return a figure as SVG, or as PNG if the SVG is large; and which."""
    text, pixels = io.StringIO(), io.BytesIO()
    save_svg(figure, text, name)
    if len(text.getvalue()) <= MAX_SVG:
        return "svg+xml", _NOT_XML.sub("", text.getvalue()).encode()
    with figure_style():
        figure.savefig(pixels, format="png", dpi=DPI, bbox_inches="tight")
    return "png", pixels.getvalue()


def _picture(kind: str, content: bytes, width: float, caption: str) -> Picture:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": width, "caption": caption}


def _caption(name: str, metric: str = "") -> str:
    name, _, data_set = name.partition("-")
    words = name.removeprefix("against_").replace("_", " ")
    caption = CAPTIONS.get(name, f"{{metric}} against {words}" if name.startswith("against_") else words)
    return caption.replace("{metric}", metric) + (f"; {data_set.replace('_', ' ')}" if data_set else "")
