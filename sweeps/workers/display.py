"""Live display of trainings that run in parallel."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.runtime.console import Console, format_duration
from pipelines.runtime.notebook import UpdatedOutput, in_notebook
from pipelines.runtime.status import clear_status
from pipelines.runtime.text import escape_control_characters, short_names

if TYPE_CHECKING:
    from sweeps.workers.pool import WorkerProcess

REFRESH_S = 0.5  # between two updates of the live lines


def format_params(params: Mapping[str, Any], separator: str = "  ") -> str:
    """Format params in one short line: numbers with 4 digits, of each key the last parts that make it unique."""
    texts = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params.items()}
    names = short_names(list(params))
    return separator.join(f"{names[key]}={text}" for key, text in texts.items())


class LiveDisplay:
    """Permanent lines and, on a terminal or in a notebook, live lines. Use it as a context manager.

    At the end the live lines disappear from a terminal. A notebook keeps the summary: an output cannot be removed.
    """

    def __init__(self) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self._output = UpdatedOutput() if in_notebook() else None
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._last_update = 0.0
        self._summary: Callable[[], RenderableType] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._live.stop()
        if self._output is not None and self._summary is not None and error is None:
            self._output.show(self._summary())

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None without one."""
        return self.console.width if self.console.is_terminal else None

    def print(self, text: str) -> None:
        """Print a line above the live lines."""
        self.console.print(text, markup=False)

    def draw(self, summary: Callable[[], RenderableType], children: "Sequence[WorkerProcess]") -> None:
        """Update the live lines, if there is a terminal or notebook: a summary, and a table of the trainings."""
        is_shown = self.console.is_terminal or self._output is not None
        if not is_shown or time.monotonic() - self._last_update < REFRESH_S:
            return
        self._last_update, self._summary = time.monotonic(), summary
        if self._output is not None:
            self._output.show(Group(summary(), _table(children)))
            return
        if not self._live.is_started:
            clear_status()
            self._live.start()
        self._live.update(Group(summary(), _table(children)), refresh=True)


def time_left(seconds: Sequence[float], left: int, running: int) -> str:
    """Estimate the remaining time ("about 2 min left") from the durations of the finished trainings."""
    mean = sum(seconds) / len(seconds)
    return f"about {format_duration(mean * left / max(1, running))} left"


def _table(children: "Sequence[WorkerProcess]") -> Table:
    """Return a table of running trainings: name, finished epochs, metric of the last one, duration."""
    metrics = {child.job.metric for child in children if child.job.metric}
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    table.add_column("running", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in ("epochs", metrics.pop() if len(metrics) == 1 else "metric", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for child in children:
        value = "" if child.value is None else f"{child.value:.4f}"
        epochs = f"{child.epoch}/{child.max_epochs}" if child.max_epochs else str(child.epoch)
        name = Text(escape_control_characters(child.job.label))
        table.add_row(name, epochs, value, format_duration(child.seconds))
    return table
