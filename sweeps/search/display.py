"""What the user sees of a sweep: live lines on a terminal, and a line for each trial that has ended."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from pipelines.runtime.console import format_duration
from sweeps.search.study import Study
from sweeps.search.trial_state import count_states
from sweeps.workers.display import LiveDisplay, time_left

if TYPE_CHECKING:
    from sweeps.workers.pool import WorkerProcess


class SweepDisplay(LiveDisplay):
    """Live display of a sweep."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: list[float] = []

    def trial_ended(self, study: Study, number: int, state: str, seconds: float, details: str) -> None:
        """Print a trial's result, and the best so far. `seconds` is 0 if the trial was not trained."""
        trial, best = study.trials()[number], study.best()
        value = f"{study.space.metric} {trial.value:.4f}" if trial.value is not None else ""
        so_far = f"best {best.value:.4f} (trial {best.trial})" if best else ""
        self._seconds += [seconds] if seconds else []
        took = f"({format_duration(seconds)})" if seconds else ""
        parts = [f"trial {number:>3}", f"{state.lower():<8}", value, details, took, so_far]
        self.print("  ".join(part for part in parts if part))

    def update(self, study: Study, children: "Sequence[WorkerProcess]") -> None:
        """Redraw the live lines: progress, and the active trainings."""
        self.draw(lambda: self._progress(study, len(children)), children)

    def _progress(self, study: Study, running: int) -> Text:
        counts, best = count_states(study.counted()), study.best()
        done = sum(counts.values())
        parts = [f"{study.name}: {done} of {study.space.total} trials, {running} running"]
        parts += [f"{number} {state}" for state, number in counts.items() if number and state != "complete"]
        parts += [f"best {study.space.metric} {best.value:.4f} (trial {best.trial})"] if best else []
        if self._seconds and done < study.space.total:
            parts.append(time_left(self._seconds, study.space.total - done, running))
        return Text("   ".join(parts))
