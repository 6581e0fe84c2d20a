"""Figures of images, and the progress bar that the methods share.

Shapes: C channels, H rows, W columns.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipelines.evaluation.plots import make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Item = TypeVar("Item")


def draw_images(
    panels: Sequence[tuple["Tensor | None", str]], columns: int, *, size: float = 1.2
) -> tuple["Figure", list["Axes"]]:
    """Return a figure of images with pixels in [0, 1], grey or RGB, shape (C, H, W), row by row, and their axes.

    Args:
        panels: Images with their titles; None leaves a panel empty.
        columns: Maximum number of panels in a row.
        size: Width of a panel, in inches.
    """
    columns = min(len(panels), columns)
    rows = -(-len(panels) // columns)
    width, height = max(size * columns, 4), (size + 0.25) * rows + 0.6
    figure, axes = make_figure(columns=columns, rows=rows, width=width, height=height)
    for axis in axes:
        axis.set_axis_off()
    for axis, (pixels_CHW, title) in zip(axes, panels, strict=False):
        axis.set_title(title, fontsize=7)
        if pixels_CHW is not None:
            pixels_HWC = pixels_CHW.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
            axis.imshow(pixels_HWC, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return figure, axes[: len(panels)]


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield the items; show a progress bar if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    return rich_track(items, description, console=console, disable=not console.is_terminal, transient=True)
