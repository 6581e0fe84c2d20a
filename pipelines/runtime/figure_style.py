"""The style of litlab's figures, from litlab.mplstyle, only while litlab draws: others' figures keep their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STYLE_FILE = Path(__file__).with_name("litlab.mplstyle")
COLOURS = (  # of the style's cycle; they differ in lightness
    *("#1b5faa", "#c4451c", "#3b9a5f", "#a970c4", "#cf9a00"),
    *("#000000", "#56b4e9", "#8c564b", "#7f7f7f", "#e377c2"),
)


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save figures in litlab's style; also a decorator. A figure is drawn and saved in it."""
    from matplotlib import style

    with style.context(STYLE_FILE):
        yield
