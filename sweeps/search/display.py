"""What the user sees of a sweep: live lines on a terminal, and a line for each trial that has ended."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from pipelines.runtime.console import format_duration
from pipelines.runtime.text import shorten
from sweeps.search.study import Study
from sweeps.search.trial_state import count_states
from sweeps.workers.display import LiveDisplay, format_params, time_left

if TYPE_CHECKING:
    from sweeps.workers.pool import WorkerProcess

ORDINALS = {2: "second", 3: "third"}
STYLES = {"PRUNED": "dim", "FAIL": "red"}


class SweepDisplay(LiveDisplay):
    """Live display of a sweep."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: list[float] = []
        self._lost = 0

    def trial_ended(self, study: Study, number: int, state: str, seconds: float, details: str) -> None:
        """Print a trial's result in one line of the terminal; in a pipe, with the best so far.

        Args:
            study: The study.
            number: The trial's number.
            state: COMPLETE, PRUNED or FAIL.
            seconds: Duration; 0 if the trial was not trained.
            details: Its configuration, which may be shortened, or why it failed.
        """
        trial = study.trial(number)
        self._seconds += [seconds] if seconds else []
        value = f"{study.space.metric} {trial.value:.4f}" if trial.value is not None else ""
        took = f"({format_duration(seconds)})" if seconds else ""
        parts = [f"trial {number:>3}", f"{state.lower():<8}", value, details, took]
        if self.width is not None and state != "FAIL":
            rest = "  ".join(part for part in parts if part and part is not details)
            parts[3] = shorten(details, self.width - len(rest) - 2)
        elif best := study.best():
            parts.append(f"best {best.value:.4f} (trial {best.trial})")
        self.console.print(Text("  ".join(filter(None, parts)), style=STYLES.get(state, "")))

    def trial_lost(self, number: int, losses: int, reason: str) -> None:
        """Print that a trial was lost with its node, for the first time or again."""
        self._lost += 1
        again = f" for the {ORDINALS[losses]} time" if losses > 1 else ""
        self.console.print(Text(f"trial {number:>3}  lost{again}: {reason}", style=STYLES["FAIL"]))

    def update(self, study: Study, children: "Sequence[WorkerProcess]") -> None:
        """Redraw the live lines: progress, the best trial, and the active trainings."""
        self.draw(lambda: self._progress(study, len(children)), children)

    def _progress(self, study: Study, running: int) -> RenderableType:
        counts, best = count_states(study.counted()), study.best()
        done, total = sum(counts.values()), study.space.total
        parts = [f"{study.name}: {done} of {total} trials"]
        parts += [f"{number} {state}" for state, number in counts.items() if number and state != "complete"]
        parts += [f"{self._lost} lost, queued again"] if self._lost else []
        parts += [time_left(self._seconds, total - done, running)] if self._seconds and done < total else []
        lines = [Text("   ".join(parts), no_wrap=True, overflow="ellipsis", style="bold")]
        if best:
            found = f"best: {study.space.metric} {best.value:.4f}, trial {best.trial}: {format_params(best.params)}"
            lines.append(Text(found, no_wrap=True, overflow="ellipsis", style="green"))
        return Group(*lines)
