"""What a person sees of trainings side by side: a few live lines on a terminal, a line for each event elsewhere."""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pipelines import screen
from sweeps.figures import said
from sweeps.study import tally

if TYPE_CHECKING:
    from sweeps.pool import Child
    from sweeps.study import Study

REFRESH_S = 0.5


class Screen:
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

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False)

    def draw(self, summary: Callable[[], RenderableType], children: "Sequence[Child]") -> None:
        """Draw the live lines anew, if it is time: the summary, and each training; nothing without a terminal."""
        if not self.console.is_terminal or time.monotonic() - self._drawn < REFRESH_S:
            return
        self._drawn = time.monotonic()
        self._live.update(Group(summary(), *map(_line, children)), refresh=True)


class Board(Screen):
    """The screen of a sweep."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: list[float] = []

    def ended(self, study: "Study", number: int, state: str, seconds: float, what: str) -> None:
        """A trial's end: what came of it, and the best so far."""
        if seconds:
            self._seconds.append(seconds)
        trial = study.trials()[number]
        value = f"{study.space.metric} {trial.value:.4f}" if trial.value is not None else ""
        best = study.best()
        so_far = f"best {best.value:.4f} (trial {best.number})" if best is not None and best.value is not None else ""
        took = f"({screen.duration(seconds)})" if seconds else ""
        words = [f"trial {number:>3}", f"{state.lower():<8}", value, what, took, so_far]
        self.say("  ".join(word for word in words if word))

    def show(self, study: "Study", children: "Sequence[Child]") -> None:
        """Draw how far the study is, and what is running."""
        self.draw(lambda: self._summary(study, len(children)), children)

    def _summary(self, study: "Study", running: int) -> Text:
        counted = tally(study.trials())
        done = sum(counted.values())
        words = [f"{study.name}: {done} of {study.space.total} trials, {running} running"]
        words += [f"{number} {state}" for state, number in counted.items() if number and state != "complete"]
        best = study.best()
        if best is not None and best.value is not None:
            words.append(f"best {study.space.metric} {best.value:.4f} (trial {best.number})")
        left = study.space.total - done
        if self._seconds and left > 0:
            words.append(time_left(self._seconds, left, running))
        return Text("   ".join(words))


def time_left(seconds: Sequence[float], left: int, running: int) -> str:
    """How long the rest will take, if it is like those that took these seconds."""
    each = sum(seconds) / len(seconds)
    return f"about {screen.duration(each * left / max(1, running))} left"


def _line(child: "Child") -> Text:
    """A training: which, how far, and with what."""
    value = "" if child.value is None else f"{child.value:.4f}"
    epoch, spec = f"epoch {child.epoch or '-':>3}", child.spec
    what = said(json.loads(spec.tags["configuration"])) if "configuration" in spec.tags else spec.experiment
    cells = (f"{spec.label:<24}", epoch, f"{value:>7}", f"{screen.duration(child.seconds):>11}", what)
    return Text("  ".join(cells), no_wrap=True, overflow="ellipsis")
