"""Figures of panels, and the progress bar that the methods share.

Shapes: C channels, H rows, W columns.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Item = TypeVar("Item")


def panel_grid(count: int, columns: int, *, size: float = 1.2) -> tuple["Figure", list["Axes"]]:
    """Return a figure with `count` panels, row by row, and their axes. Unused panels stay blank.

    Args:
        count: Number of panels.
        columns: Maximum number of panels in a row.
        size: Width of a panel, in inches.
    """
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(size * columns, 4), (size + 0.25) * rows + 0.6), dpi=100, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes[:count]


def draw_images(
    panels: Sequence[tuple["Tensor | None", str]], columns: int, *, size: float = 1.2
) -> tuple["Figure", list["Axes"]]:
    """Return a figure of images with pixels in [0, 1], grey or RGB, shape (C, H, W), and their titles, row by row.

    Args:
        panels: None leaves the panel empty.
        columns: Maximum number of panels in a row.
        size: Width of a panel, in inches.
    """
    figure, axes = panel_grid(len(panels), columns, size=size)
    for axis, (pixels_CHW, title) in zip(axes, panels, strict=True):
        axis.set_title(title, fontsize=7)
        if pixels_CHW is not None:
            pixels_HWC = pixels_CHW.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
            grey = pixels_HWC.shape[2] == 1
            axis.imshow(
                pixels_HWC[:, :, 0] if grey else pixels_HWC, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
            )
    return figure, axes


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield the items; show a progress bar if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    return rich_track(items, description, console=console, disable=not console.is_terminal, transient=True)
