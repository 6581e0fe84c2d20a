"""A list of trainings, as many side by side as there are slots: listened to, told of, and stopped together."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from pipelines.runtime.console import format_duration
from pipelines.runtime.signals import signal_handlers
from pipelines.tracking.store import Store
from sweeps.workers.display import LiveDisplay, time_left
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, Pool, WorkerProcess


@dataclass(frozen=True)
class JobResult:
    """What came of a training.

    Attributes:
        status: As the run's: FINISHED, FAILED, or KILLED if somebody stopped it.
        run_id: "" if there is no run yet, or it is a baseline.
        metrics: At the selected epoch; empty unless it is FINISHED.
        reason: Why it is not FINISHED.
    """

    spec: Job
    status: str
    run_id: str
    metrics: dict[str, float]
    reason: str
    seconds: float


@dataclass
class _Count:
    """How far the list is."""

    title: str
    total: int
    reused: int
    ends: list[JobResult] = field(default_factory=list)

    def line(self, running: int) -> RenderableType:
        done = self.reused + len(self.ends)
        words = [f"{self.title}: {done} of {self.total} runs", f"{running} running"]
        words += [f"{self.reused} reused"] if self.reused else []
        failed = sum(end.status == "FAILED" for end in self.ends)
        words += [f"{failed} failed"] if failed else []
        seconds = [end.seconds for end in self.ends if end.status == "FINISHED"]
        words += [time_left(seconds, self.total - done, running)] if seconds and done < self.total else []
        grid = Table.grid(padding=(0, 2))
        grid.add_row(ProgressBar(total=self.total, completed=done, width=24), ", ".join(words))
        return grid


def run_jobs(
    pool: Pool,
    specs: Sequence[Job],
    store: Store,
    on_screen: LiveDisplay,
    *,
    title: str,
    reused: int = 0,
    ended: Callable[[JobResult], object] = lambda end: None,
    tick: Callable[[], object] = lambda: None,
) -> list[JobResult]:
    """Train them all, unless the pool is to stop; a failure costs one training, and is said.

    Whatever happens, no process is left, and no run of one that could not end it.

    Args:
        pool: Who trains.
        specs: The trainings; the first ones begin first.
        store: Where the runs go.
        on_screen: What the user sees.
        title: What the trainings are, for the screen.
        reused: How many more the screen counts, which there were before.
        ended: Called at the end of each.
        tick: Called a few times a second.

    Returns:
        The end of each that was begun, in the order of their ends.

    Raises:
        UserError: The store has gone.
    """
    waiting, count = list(specs), _Count(title, reused + len(specs), reused)
    try:
        while (waiting and not pool.stops) or pool.children:
            while waiting and pool.free and not pool.stops:
                pool.start(waiting.pop(0))
            for child, message in pool.events(0.25):
                if message[0] == "epoch":  # for the screen
                    child.answer(stop=False)
                    continue
                end = _end(pool, store, child, authoritative_message(store, child, message))
                count.ends.append(end)
                on_screen.print(_said(end))
                ended(end)
            tick()
            on_screen.draw(lambda: count.line(len(pool.children)), pool.children)
    finally:
        left = list(pool.children)
        pool.kill_all()
        for child in left:
            end_orphan(store, child, "KILLED", "stopped")
    return count.ends


def authoritative_message(store: Store, child: WorkerProcess, message: Message) -> Message:
    """What a process says; one that died when its run had finished was done."""
    if message[0] == "died" and child.run_id:
        run = store.find(child.run_id)
        if run.status == "FINISHED":
            return "done", run.metrics
    return message


def end_orphan(store: Store, child: WorkerProcess, status: str, reason: str) -> None:
    """End the run of a process that could not, and keep what it printed."""
    if child.run_id:
        store.end(child.run_id, status, reason)
        store.keep_file(child.run_id, Path(child.spec.log), "log.txt")


@contextlib.contextmanager
def graceful_shutdown(pool: Pool) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end what is under way properly, a second one at once; yields those that came."""
    signals: list[int] = []

    def hear(number: int, frame: object) -> None:
        signals.append(number)
        pool.stops = len(signals)

    with signal_handlers(hear, signal.SIGINT, signal.SIGTERM):
        yield signals


def _end(pool: Pool, store: Store, child: WorkerProcess, message: Message) -> JobResult:
    kind, said = message
    if kind == "done":
        return JobResult(child.spec, "FINISHED", child.run_id, said, "", child.seconds)
    stopped = kind == "stopped" or pool.stops > 0
    status, reason = ("KILLED", "stopped") if stopped else ("FAILED", said)
    end_orphan(store, child, status, reason)
    return JobResult(child.spec, status, child.run_id, {}, reason, child.seconds)


def _said(end: JobResult) -> str:
    """A training's end in one line."""
    shown = [key for key in sorted(end.metrics) if key.startswith("test/")]
    what = [f"{key} {end.metrics[key]:.4f}" for key in shown]
    what += {"FAILED": [f"failed: {end.reason}"], "KILLED": ["stopped"]}.get(end.status, [])
    return "  ".join([end.spec.experiment, end.spec.label, *what, f"({format_duration(end.seconds)})"])
