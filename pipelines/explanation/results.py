"""What a method returns: a figure and its numbers. Written to files, and logged as a child of the explained run."""

import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.outputs import check_output
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
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
    from matplotlib.figure import Figure

CHARACTERS_PER_INCH = 11  # of a title


@dataclass(frozen=True)
class Explanation:
    """A figure that explains a network, and its numbers.

    Attributes:
        target: The network that is explained.
        title: "maximise class 7 norm": the method, and what distinguishes this explanation from others by the method.
        figure: Without the title, which `write_files` adds.
        numbers: Plain types, for JSON. Single numbers that are not params become metrics.
        params: The method's options; those that are None or empty are not logged.
    """

    target: Target
    title: str
    figure: "Figure"
    numbers: Mapping[str, Any]
    params: Mapping[str, Any]

    @property
    def caption(self) -> str:
        """The title, the network, and the metrics."""
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in self.metrics().items())
        return f"{self.title}, {self.target.name}" + (f": {metrics}" if metrics else "")

    @property
    def file_stem(self) -> str:
        """Name of its files, without suffix: method, network or run, and the rest of the title."""
        method, _, detail = self.title.partition(" ")
        slug = re.sub(r"[^\w.]+", "-", detail).strip("-")[:60]
        return "-".join(part for part in (method, self.target.id, slug) if part)

    def metrics(self) -> dict[str, float]:
        """Return the single numbers that are not params."""
        results = {key: value for key, value in self.numbers.items() if key not in self.params}
        return {key: float(value) for key, value in results.items() if isinstance(value, int | float)}


def write_files(explanation: Explanation, folder: Path, *, command: str = "") -> Path:
    """Write the picture with its title, and next to it the numbers and the caption as JSON.

    Args:
        explanation: What a method returned.
        folder: Is created.
        command: The command line, recorded in the JSON file.

    Returns:
        The picture, a PNG file; the numbers have the same name with the suffix .json.

    Raises:
        UserError: The folder cannot be written to, or has another file of such a name.
    """
    picture = folder / f"{explanation.file_stem}.png"
    run = explanation.target.run
    facts = {"what": explanation.title, "network": explanation.target.name, "run": run and run.run_id}
    facts |= {"command": command, "caption": explanation.caption}
    text = json.dumps({**facts, **explanation.numbers}, indent=2)
    check_output(picture, *(explanation.title.encode(encoding, "ignore") for encoding in ("utf-8", "latin-1")))
    check_output(picture.with_suffix(".json"), b'{\n  "what": ')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _draw(explanation.figure, f"{explanation.title}, {explanation.target.name}", explanation.caption, picture)
        picture.with_suffix(".json").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    return picture


def log_run(explanation: Explanation, picture: Path, *, command: str, arguments: str, seed: int = 0) -> str:
    """Log an explanation as a child of the explained run, which is not changed.

    Args:
        explanation: Of a network that comes from a run.
        picture: As returned by `write_files`.
        command: The command line.
        arguments: Of the command, without run and places; `litlab reproduce` finds the explanation by them.
        seed: Logged as a param.

    Returns:
        The id of the child run.

    Raises:
        UserError: The tracking store does not accept the run.
    """
    parent = explanation.target.run
    assert parent is not None
    tags = {
        PARENT_RUN_TAG: parent.run_id,
        PARENT_TAG: "explain",
        EXPLAIN_TAG: arguments,
        COMMAND_TAG: command,
        SOURCE_NAME_TAG: "litlab explain",
        SOURCE_TYPE_TAG: "LOCAL",
        NOTE_TAG: f"{explanation.caption}\n\n    {command}\n",
    }
    params = {key: _as_text(value) for key, value in {"seed": seed, **explanation.params}.items()}
    run = Run(parent.store, parent.experiment, f"explain {explanation.title}"[:200], tags)
    with recorded(run):
        figures = run.folder / "figures"
        figures.mkdir(exist_ok=True)
        shutil.copyfile(picture, figures / picture.name)
        numbers_file = picture.with_suffix(".json")
        shutil.copyfile(numbers_file, run.folder / numbers_file.name)
        run.log_params({key: value for key, value in params.items() if value is not None and value not in ([], "")})
        if metrics := explanation.metrics():
            run.log_metrics(metrics, 0)
    return run.run_id


def _draw(figure: "Figure", title: str, caption: str, path: Path) -> None:
    with figure_style():
        width = int(figure.get_size_inches()[0] * CHARACTERS_PER_INCH)
        figure.suptitle(textwrap.fill(title, width), fontsize=10)
        figure.savefig(path, metadata={"Description": caption}, pil_kwargs={"optimize": True})


def _as_text(value: Any) -> Any:
    """Turn paths, also those in a list, into text."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return str(value) if isinstance(value, Path) else value
