"""Train a list of jobs, as many in parallel as the pool has slots."""

import contextlib
import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from pipelines.runtime.console import format_duration
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import signal_handlers
from pipelines.runtime.text import first_line
from pipelines.tracking.measured import metrics_after_training
from pipelines.tracking.store import Store
from pipelines.tracking.tags import TRIAL_STATE_TAG
from sweeps.workers.display import LiveDisplay, time_left
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, Pool, WorkerProcess

MAX_LOSSES = 3  # of a training, with the nodes that it was on; then it has failed


@dataclass(frozen=True)
class JobResult:
    """Result of a job.

    Attributes:
        job: The job.
        status: Status of its run: FINISHED, FAILED, or KILLED if the user stopped it.
        metrics: Metrics at the selected epoch; empty unless the status is FINISHED.
        reason: Why the status is not FINISHED.
        seconds: Duration.
    """

    job: Job
    status: str
    metrics: dict[str, float]
    reason: str
    seconds: float

    @property
    def failure(self) -> str:
        """Which training failed, and why."""
        return f"{self.job.experiment}, seed {self.job.seed}: {self.reason}"


def run_jobs(
    pool: Pool,
    jobs: Sequence[Job],
    store: Store,
    display: LiveDisplay,
    *,
    title: str,
    reused: int = 0,
    stacked: int = 1,
    check: Callable[[], None] = lambda: None,
    on_result: Callable[[JobResult], None] = lambda result: None,
) -> list[JobResult]:
    """Train all jobs, or as many as are started before the pool is stopped. A failed job does not affect the others.

    One that is lost with its node is trained again, at most MAX_LOSSES - 1 times.

    On return and on an exception no process is left, and no run of these jobs is RUNNING.

    Args:
        pool: Trains the jobs, started in this order.
        jobs: The jobs.
        store: Tracking store of the runs.
        display: Gets a line for each result, and the progress.
        title: Title of the progress line.
        reused: Number of runs that exist already, which the progress counts as done.
        stacked: Number of jobs that a process trains as one.
        check: Called several times a second; an exception ends the jobs.
        on_result: Called with each result when the job has ended; an exception ends the other jobs.

    Returns:
        The result of each job that was started, in the order in which they ended.

    Raises:
        UserError: The tracking store is lost.
    """
    waiting, results, losses = list(jobs), list[JobResult](), Counter[int]()
    try:
        while (waiting and not pool.stop_requests) or pool.children:
            while waiting and pool.free_slots and not pool.stop_requests:
                size = min(stacked, math.ceil(len(waiting) / len(pool.free_slots)))
                pool.start(*waiting[:size])
                del waiting[:size]
            for child, message in pool.events(0.25):
                if message[0] == "epoch":  # only for the display
                    child.answer(stop=False)
                    continue
                message = authoritative_message(store, child, message)
                if message[0] == "lost" and not pool.stop_requests:
                    end_lost(store, child, message[1])
                    losses[id(child.job)] += 1
                    if losses[id(child.job)] < MAX_LOSSES:
                        waiting.insert(0, child.job)
                        display.print(f"{child.job.label}  lost, queued again: {message[1]}")
                        continue
                    message = "failed", lost_too_often(message[1])
                results.append(_end(pool, store, child, message))
                display.print(_result_line(results[-1], display.width))
                on_result(results[-1])
            check()
            display.draw(
                lambda: _progress(title, reused + len(jobs), reused, results, len(pool.children)), pool.children
            )
    finally:
        left = list(pool.children)
        pool.kill_all()
        for child in left:
            end_orphan(store, child, "KILLED", "stopped")
    return results


def authoritative_message(store: Store, child: WorkerProcess, message: Message) -> Message:
    """Return a process's last message, or "done" if it died or was lost after its run was stored as FINISHED."""
    if message[0] in ("died", "lost") and child.run_id:
        run = store.find(child.run_id)
        if run.status == "FINISHED":
            return "done", run.metrics
    return message


def end_lost(store: Store, child: WorkerProcess, reason: str) -> None:
    """End the run of a training that was lost with its node, and mark it: see `tags.was_lost`."""
    if child.run_id:
        store.tag(child.run_id, TRIAL_STATE_TAG, "FAIL")
        store.end(child.run_id, "KILLED", reason)


def lost_too_often(reason: str) -> str:
    """Return why a training is not queued again that was lost MAX_LOSSES times."""
    return f"lost {MAX_LOSSES} times; the last: {reason}"


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


@contextlib.contextmanager
def explained_loss() -> Iterator[None]:
    """Raise UserError if the tracking store is lost; also a decorator."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        message = "Lost the tracking server or database. Run the same command again to continue."
        raise UserError(f"{message} ({first_line(error)})") from error


def _end(pool: Pool, store: Store, child: WorkerProcess, message: Message) -> JobResult:
    """Return the result that a job's last message reports; if it did not finish, see that its run is ended."""
    kind, content = message
    if kind == "done":
        return JobResult(child.job, "FINISHED", content, "", child.seconds)
    stopped = kind == "stopped" or pool.stop_requests > 0
    status, reason = ("KILLED", "stopped") if stopped else ("FAILED", content)
    end_orphan(store, child, status, reason)
    return JobResult(child.job, status, {}, reason, child.seconds)


def _progress(title: str, total: int, reused: int, results: Sequence[JobResult], running: int) -> RenderableType:
    """Return the progress line of the live display."""
    done, failed = reused + len(results), sum(result.status == "FAILED" for result in results)
    seconds = [result.seconds for result in results if result.status == "FINISHED"]
    counts = ((running, "running"), (reused, "reused"), (failed, "failed"))
    words = [f"{title}: {done} of {total} runs", *(f"{number} {word}" for number, word in counts if number)]
    words += [time_left(seconds, total - done, running)] if seconds and done < total else []
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=total, completed=done, width=24), ", ".join(words))
    return grid


def _result_line(result: JobResult, width: int | None) -> str:
    """Format a result in one line: experiment, if the line then fits the width, label, metrics or reason, duration."""
    shown = sorted(metrics_after_training(result.metrics))
    what = [f"{key} {result.metrics[key]:.4f}" for key in shown]
    what += {"FAILED": [f"failed: {result.reason}"], "KILLED": ["stopped"]}.get(result.status, [])
    line = "  ".join([result.job.label, *what, f"({format_duration(result.seconds)})"])
    whole = f"{result.job.experiment}  {line}"
    return whole if width is None or len(whole) <= width else line
