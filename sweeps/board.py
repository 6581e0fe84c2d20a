"""What a person sees of a study: a few live lines on a terminal, a line for each event elsewhere."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelines import screen
from sweeps.figures import said
from sweeps.study import tally

if TYPE_CHECKING:
    from sweeps.pool import Child
    from sweeps.study import Study

REFRESH_S = 0.5


class Board:
    """The screen of a sweep; use it as a context."""

    def __init__(self) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._seconds: list[float] = []
        self._began = time.monotonic()

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False)

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

    def confirmed(self, name: str, metrics: Mapping[str, float] | None, reason: str = "") -> None:
        """The end of a training on a fresh seed; no metrics if it failed, empty ones if it was stopped."""
        if metrics:
            tested = [key for key in sorted(metrics) if key.startswith("test/")]
            self.say("  ".join([name, *(f"{key} {metrics[key]:.4f}" for key in tested)]))
        elif metrics is None:
            self.say(f"{name}  failed: {reason}")

    def show(self, study: "Study", children: "Sequence[Child]") -> None:
        """Draw the lines anew, if it is time; nothing without a terminal."""
        if not self.console.is_terminal or time.monotonic() - self._drawn < REFRESH_S:
            return
        self._drawn = time.monotonic()
        self._live.update(Group(self._summary(study, len(children)), *_running(children)), refresh=True)

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
            each = sum(self._seconds) / len(self._seconds)
            words.append(f"about {screen.duration(each * left / max(1, running))} left")
        return Text("   ".join(words))


def _running(children: "Sequence[Child]") -> list[Text]:
    """A line for each training: which, how far, and with what."""
    lines = []
    for child in children:
        value = "" if child.value is None else f"{child.value:.4f}"
        name = child.spec.name.partition(" seed")[0]
        cells = (f"{name:<16}", f"seed {child.spec.seed}", f"epoch {child.epoch or '-':>3}", f"{value:>7}")
        what = said(json.loads(child.spec.tags.get("configuration", "{}")))
        text = "  ".join([*cells, f"{screen.duration(child.seconds):>11}", what])
        lines.append(Text(text, no_wrap=True, overflow="ellipsis"))
    return lines
