"""Live display of trainings that run in parallel."""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pipelines.runtime.console import format_duration
from pipelines.tracking.tags import CONFIGURATION_TAG

if TYPE_CHECKING:
    from sweeps.workers.pool import WorkerProcess

REFRESH_S = 0.5  # between two updates of the live lines


def format_params(params: dict[str, Any]) -> str:
    """Format params in one short line, numbers with 4 digits; of each key only the part after the last dot."""
    texts = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params.items()}
    return "  ".join(f"{key.rpartition('.')[2]}={text}" for key, text in texts.items())


class LiveDisplay:
    """Permanent lines and, on a terminal, live lines below them. Use it as a context manager."""

    def __init__(self) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._last_update = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def print(self, text: str) -> None:
        """Print a line above the live lines."""
        self.console.print(text, markup=False)

    def draw(self, summary: Callable[[], RenderableType], children: "Sequence[WorkerProcess]") -> None:
        """Update the live lines: a summary and a line for each training. Without a terminal, do nothing."""
        if not self.console.is_terminal or time.monotonic() - self._last_update < REFRESH_S:
            return
        self._last_update = time.monotonic()
        self._live.update(Group(summary(), *map(_training_line, children)), refresh=True)


def time_left(seconds: Sequence[float], left: int, running: int) -> str:
    """Estimate the remaining time ("about 2 min left") from the durations of the finished trainings."""
    mean = sum(seconds) / len(seconds)
    return f"about {format_duration(mean * left / max(1, running))} left"


def _training_line(child: "WorkerProcess") -> Text:
    """Return the name, epoch, metric, duration and configuration of a running training."""
    job, epoch = child.job, f"epoch {child.epoch or '-':>3}"
    value = "" if child.value is None else f"{child.value:.4f}"
    configuration = job.tags.get(CONFIGURATION_TAG)
    what = job.experiment if configuration is None else format_params(json.loads(configuration))
    cells = (f"{job.label:<24}", epoch, f"{value:>7}", f"{format_duration(child.seconds):>11}", what)
    return Text("  ".join(cells), no_wrap=True, overflow="ellipsis")
