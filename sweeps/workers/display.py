"""Live display of trainings that run side by side."""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pipelines.runtime.console import format_duration

if TYPE_CHECKING:
    from sweeps.workers.pool import WorkerProcess


REFRESH_S = 0.5


def format_params(params: dict[str, Any]) -> str:
    """A configuration in one short line, keys by their last words."""
    return "  ".join(
        f"{key.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{key.rpartition('.')[2]}={value}"
        for key, value in params.items()
    )


class LiveDisplay:
    """Lines that stay, and below them, on a terminal, live ones; use it as a context."""

    def __init__(self) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = 0.0

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
        """Draw the live lines anew, if it is time: the summary, and each training; nothing without a terminal."""
        if not self.console.is_terminal or time.monotonic() - self._drawn < REFRESH_S:
            return
        self._drawn = time.monotonic()
        self._live.update(Group(summary(), *map(_line, children)), refresh=True)


def time_left(seconds: Sequence[float], left: int, running: int) -> str:
    """How long the rest will take, if it is like those that took these seconds."""
    each = sum(seconds) / len(seconds)
    return f"about {format_duration(each * left / max(1, running))} left"


def _line(child: "WorkerProcess") -> Text:
    """A training: which, how far, and with what."""
    value = "" if child.value is None else f"{child.value:.4f}"
    epoch, spec = f"epoch {child.epoch or '-':>3}", child.spec
    what = format_params(json.loads(spec.tags["configuration"])) if "configuration" in spec.tags else spec.experiment
    cells = (f"{spec.label:<24}", epoch, f"{value:>7}", f"{format_duration(child.seconds):>11}", what)
    return Text("  ".join(cells), no_wrap=True, overflow="ellipsis")
