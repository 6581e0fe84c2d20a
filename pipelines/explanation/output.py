"""What a look leaves behind: a picture with a caption, its numbers, and a run that is a child of the one looked at."""

import argparse
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    EXPLAIN_TAG,
    NOTE_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

LETTERS_PER_INCH = 15.5  # of a caption
NOT_PARAMS = ("out", "command", "asked")
Item = TypeVar("Item")


def grid(count: int, columns: int, *, size: float = 1.2) -> tuple["Figure", list["Axes"]]:
    """A figure with a panel for each of `count` pictures, row by row, and nothing drawn where none is.

    Args:
        count: Number of pictures.
        columns: At most.
        size: Of a panel, in inches.
    """
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(size * columns, 4), (size + 0.25) * rows + 0.6), dpi=100, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes[:count]


def show(axis: "Axes", pixels_CHW: "Tensor", title: str = "") -> None:
    """Draw an image of pixels in [0, 1], grey or RGB."""
    pixels_HWC = pixels_CHW.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    grey = pixels_HWC.shape[2] == 1
    axis.imshow(pixels_HWC[:, :, 0] if grey else pixels_HWC, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=7)


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a progress bar in a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    return rich_track(items, what, total, console=console, disable=not console.is_terminal, transient=True)


def keep(
    subject: Target,
    what: str,
    figure: "Figure",
    numbers: Mapping[str, Any],
    options: argparse.Namespace,
    caption: str,
) -> Path:
    """Write picture and numbers, and log both as a child of the run that is looked at; says where.

    Args:
        subject: What is looked at. Its run is not changed.
        what: "maximise class 7": the word, and what tells this look from others.
        figure: Gets the caption at its foot.
        numbers: Plain types, for JSON; those that are single numbers and no options become metrics.
        options: Of the command, with `out`, `command` and `asked`; they become params.
        caption: Holds the numbers that matter.

    Returns:
        The picture, in the folder that --out names; the numbers are beside it, as JSON.

    Raises:
        UserError: The folder cannot be written to, or the store takes no run.
    """
    word, _, detail = what.partition(" ")
    slug = re.sub(r"[^\w.]+", "-", detail).strip("-")[:60]
    picture: Path = options.out / ("-".join(part for part in (word, subject.id, slug) if part) + ".png")
    facts = {"what": what, "network": subject.name, "run": subject.run and subject.run.run_id}
    text = json.dumps({**facts, "command": options.command, "caption": caption, **numbers}, indent=2)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        _draw(figure, caption, picture)
        picture.with_suffix(".json").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"{options.out}: cannot be written ({error.strerror})") from error
    print(f"{textwrap.fill(caption, 100)}\n\npicture  {picture}\nnumbers  {picture.with_suffix('.json')}")
    if subject.run is not None:
        print(f"run      {_log(subject.run, what, picture, numbers, options, caption)}")
    return picture


def _draw(figure: "Figure", caption: str, path: Path) -> None:
    width = int(figure.get_size_inches()[0] * LETTERS_PER_INCH)
    figure.supxlabel(textwrap.fill(caption, width), x=0.01, ha="left", fontsize=7)
    figure.savefig(path, metadata={"Description": caption}, pil_kwargs={"optimize": True})


def _log(
    parent: StoredRun,
    what: str,
    picture: Path,
    numbers: Mapping[str, Any],
    options: argparse.Namespace,
    caption: str,
) -> str:
    """A run of its own, beneath the one that was looked at; its id."""
    given = {key: value for key, value in vars(options).items() if key not in NOT_PARAMS}
    settings = {key: _plain(value) for key, value in given.items() if value is not None and value not in ([], "")}
    others = {key: value for key, value in numbers.items() if key not in vars(options)}
    single = {key: float(value) for key, value in others.items() if isinstance(value, int | float)}
    experiment = parent.store.client.get_experiment(parent.experiment_id).name
    tags = {
        PARENT_RUN_TAG: parent.run_id,
        PARENT_TAG: "explain",
        EXPLAIN_TAG: options.asked,
        COMMAND_TAG: options.command,
        SOURCE_NAME_TAG: "litlab explain",
        SOURCE_TYPE_TAG: "LOCAL",
        NOTE_TAG: f"{caption}\n\n    {options.command}\n",
    }
    run = Run(parent.store, experiment, f"explain {what}"[:200], tags)
    with recorded(run):
        figures = run.folder / "figures"
        figures.mkdir(exist_ok=True)
        shutil.copyfile(picture, figures / picture.name)
        numbers_file = picture.with_suffix(".json")
        shutil.copyfile(numbers_file, run.folder / numbers_file.name)
        run.log_params(settings)
        if single:
            run.log_metrics(single, 0)
    return run.run_id


def _plain(value: Any) -> Any:
    """A path, also within a list, as text."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
