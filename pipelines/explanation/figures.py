"""Figures of images, and the progress bar that the methods share.

Shapes: C channels, H rows, W columns.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipelines.evaluation.plots import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

COLUMNS = 6  # of images with text above them
Item = TypeVar("Item")


def draw_images(
    images: Sequence[tuple["Tensor | None", str]], columns: int = COLUMNS, *, size: float = 1.5
) -> tuple["Figure", list["Axes"]]:
    """Return a figure of images with pixels in [0, 1], grey or RGB, shape (C, H, W), row by row, and their axes.

    Args:
        images: With their titles; None leaves a panel empty.
        columns: Maximum number of panels in a row.
        size: Width of a panel, in inches.
    """
    columns = min(len(images), columns)
    extra = max(0.0, 5 - columns * size), 0.4
    figure, axes = panels(len(images), columns, size=(size, size + 0.3), extra=extra)
    for axis, (pixels_CHW, title) in zip(axes, images, strict=True):
        axis.set_axis_off()
        axis.set_title(title, fontsize=8)
        if pixels_CHW is not None:
            pixels_HWC = pixels_CHW.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
            axis.imshow(pixels_HWC, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return figure, axes


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield the items; show a progress bar if stderr is a terminal."""
    from rich.progress import track as rich_track

    from pipelines.runtime.console import Console

    console = Console(stderr=True)
    return rich_track(items, description, console=console, disable=not console.is_terminal, transient=True)
