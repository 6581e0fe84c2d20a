"""What a person sees of trainings side by side: a few live lines on a terminal, a line for each event elsewhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from pipelines.runtime.console import format_duration
from sweeps.search.study import tally
from sweeps.workers.display import LiveDisplay, time_left

if TYPE_CHECKING:
    from sweeps.search.study import Study
    from sweeps.workers.pool import WorkerProcess


class SweepDisplay(LiveDisplay):
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
        took = f"({format_duration(seconds)})" if seconds else ""
        words = [f"trial {number:>3}", f"{state.lower():<8}", value, what, took, so_far]
        self.print("  ".join(word for word in words if word))

    def show(self, study: "Study", children: "Sequence[WorkerProcess]") -> None:
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
