"""The figures of a page: those of the comparison, and those that a run saved.

A picture has the keys `source` (a data URI, as which an SVG cannot reach into the page), `caption`, and `width` in CSS
pixels.
"""

import base64
import io
import re
from typing import TYPE_CHECKING, Any

from pipelines.comparison.figures import draw_figures, save_svg, saved_figures
from pipelines.comparison.rows import Comparison
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking.store import StoredRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SVG = 500_000  # characters; a larger figure, such as one of many points, becomes a PNG
DPI = 110
SAVED_DPI = 120  # of the figures that runs save
PIXELS_PER_INCH = 96  # of CSS
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


def saved_pictures(run: StoredRun) -> tuple[list[Picture], list[str]]:
    """Read the PNG figures that a run saved.

    Returns:
        The pictures, and a sentence if there are none or one cannot be read.
    """
    pictures: list[Picture] = []
    try:
        for path in (path for path in saved_figures(run) if path.endswith(".png")):
            content = run.file(path).read_bytes()
            width = int.from_bytes(content[16:20], "big") * PIXELS_PER_INCH / SAVED_DPI  # the header comes first
            name = path.rpartition("/")[2].removesuffix(".png")
            pictures.append(_picture("png", content, width, _caption(name)))
    except (UserError, OSError) as error:
        return pictures, [f"figures of run {run.run_id} cannot be read: {first_line(error)}"]
    return pictures, [] if pictures else [f"run {run.run_id} has no figures"]


def _draw(figure: "Figure", name: str) -> tuple[str, bytes]:
    """Return a figure as SVG, or as PNG if the SVG is large; and which."""
    text, pixels = io.StringIO(), io.BytesIO()
    save_svg(figure, text, name)
    if len(text.getvalue()) <= MAX_SVG:
        return "svg+xml", _NOT_XML.sub("", text.getvalue()).encode()
    figure.savefig(pixels, format="png", dpi=DPI)
    return "png", pixels.getvalue()


def _picture(kind: str, content: bytes, width: float, caption: str) -> Picture:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": width, "caption": caption}


def _caption(name: str, metric: str = "") -> str:
    words = name.removeprefix("against_").replace("_", " ")
    caption = CAPTIONS.get(name, f"{{metric}} against {words}" if name.startswith("against_") else words)
    return caption.replace("{metric}", metric)
