"""Train a list of jobs, as many in parallel as the pool has slots."""

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
    """Result of a job.

    Attributes:
        job: The job.
        status: Status of its run: FINISHED, FAILED, or KILLED if the user stopped it.
        run_id: "" if no run was created yet, or if the job is a baseline.
        metrics: Metrics at the selected epoch; empty unless the status is FINISHED.
        reason: Why the status is not FINISHED.
        seconds: Duration.
    """

    job: Job
    status: str
    run_id: str
    metrics: dict[str, float]
    reason: str
    seconds: float


@dataclass
class _Progress:
    """Progress of a list of jobs, for the live display."""

    title: str
    total: int
    reused: int
    results: list[JobResult] = field(default_factory=list)

    def line(self, running: int) -> RenderableType:
        done = self.reused + len(self.results)
        words = [f"{self.title}: {done} of {self.total} runs", f"{running} running"]
        words += [f"{self.reused} reused"] if self.reused else []
        failed = sum(result.status == "FAILED" for result in self.results)
        words += [f"{failed} failed"] if failed else []
        seconds = [result.seconds for result in self.results if result.status == "FINISHED"]
        words += [time_left(seconds, self.total - done, running)] if seconds and done < self.total else []
        grid = Table.grid(padding=(0, 2))
        grid.add_row(ProgressBar(total=self.total, completed=done, width=24), ", ".join(words))
        return grid


def run_jobs(
    pool: Pool,
    jobs: Sequence[Job],
    store: Store,
    display: LiveDisplay,
    *,
    title: str,
    reused: int = 0,
    on_result: Callable[[JobResult], object] = lambda result: None,
) -> list[JobResult]:
    """Train all jobs, or as many as are started before the pool is stopped. A failed job does not affect the others.

    On return and on an exception no process is left, and no run of these jobs is RUNNING.

    Args:
        pool: Pool that trains the jobs.
        jobs: Jobs, started in this order.
        store: Tracking store of the runs.
        display: Receives a line for each result, and the progress.
        title: Title of the progress line.
        reused: Number of runs that exist already, which the progress counts as done.
        on_result: Called with each result.

    Returns:
        The result of each job that was started, in the order in which they ended.

    Raises:
        UserError: The tracking store is lost.
    """
    waiting, progress = list(jobs), _Progress(title, reused + len(jobs), reused)
    try:
        while (waiting and not pool.stop_requests) or pool.children:
            while waiting and pool.free_slots and not pool.stop_requests:
                pool.start(waiting.pop(0))
            for child, message in pool.events(0.25):
                if message[0] == "epoch":  # only for the display
                    child.answer(stop=False)
                    continue
                result = _end(pool, store, child, authoritative_message(store, child, message))
                progress.results.append(result)
                display.print(_result_line(result))
                on_result(result)
            display.draw(lambda: progress.line(len(pool.children)), pool.children)
    finally:
        left = list(pool.children)
        pool.kill_all()
        for child in left:
            end_orphan(store, child, "KILLED", "stopped")
    return progress.results


def authoritative_message(store: Store, child: WorkerProcess, message: Message) -> Message:
    """Return a process's last message, or "done" if the process died after its run was stored as FINISHED."""
    if message[0] == "died" and child.run_id:
        run = store.find(child.run_id)
        if run.status == "FINISHED":
            return "done", run.metrics
    return message


def end_orphan(store: Store, child: WorkerProcess, status: str, reason: str) -> None:
    """End the run of a process that could not end it itself, and save the process's output as log.txt."""
    if child.run_id:
        store.end(child.run_id, status, reason)
        store.keep_file(child.run_id, Path(child.job.log_file), "log.txt")


@contextlib.contextmanager
def graceful_shutdown(pool: Pool) -> Iterator[list[int]]:
    """Stop the pool on Ctrl-C or SIGTERM: the first signal ends the trainings gracefully, the second at once.

    Yields:
        The list that received signals are appended to.
    """
    signals: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        signals.append(number)
        pool.stop_requests = len(signals)

    with signal_handlers(on_signal, signal.SIGINT, signal.SIGTERM):
        yield signals


def _end(pool: Pool, store: Store, child: WorkerProcess, message: Message) -> JobResult:
    """Return the result that a job's last message reports; if it did not finish, see that its run is ended."""
    kind, content = message
    if kind == "done":
        return JobResult(child.job, "FINISHED", child.run_id, content, "", child.seconds)
    stopped = kind == "stopped" or pool.stop_requests > 0
    status, reason = ("KILLED", "stopped") if stopped else ("FAILED", content)
    end_orphan(store, child, status, reason)
    return JobResult(child.job, status, child.run_id, {}, reason, child.seconds)


def _result_line(result: JobResult) -> str:
    """Format a result in one line: experiment, label, test metrics or reason, duration."""
    shown = [key for key in sorted(result.metrics) if key.startswith("test/")]
    what = [f"{key} {result.metrics[key]:.4f}" for key in shown]
    what += {"FAILED": [f"failed: {result.reason}"], "KILLED": ["stopped"]}.get(result.status, [])
    return "  ".join([result.job.experiment, result.job.label, *what, f"({format_duration(result.seconds)})"])
