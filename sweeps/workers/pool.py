"""Pool of worker processes: starts them from a preloaded fork server, receives their messages, and ends them."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.process import FORK_IS_SAFE, SIGKILL, signal_process_group
from pipelines.runtime.signals import signal_handlers
from pipelines.tracking.mlflow_internals import DATABASE_STORE
from sweeps.workers.entrypoints import check_experiment, train_job, train_stack
from sweeps.workers.job import Job, write_job
from sweeps.workers.multiprocessing_internals import start_fork_server

PRELOAD = [
    "sweeps.workers.worker",
    "mlflow.tracking.client",
    DATABASE_STORE,
    "pipelines.evaluation.figures",
]
GRACE_S = 30.0  # from the request to stop until the process is killed
START_TRIES = 3
Message = tuple[Any, ...]  # ("run", run id), ("epoch", number, value), or the last one: (kind, metrics or reason)


@dataclass
class WorkerProcess:
    """A running training: its job, its process, and what it has reported.

    Attributes:
        job: The job.
        process: The process. Stacked jobs share one.
        pipe: Receives the job's messages, and sends the answers.
        started: Start time on the monotonic clock, in seconds.
        siblings: The jobs of the same process that have not ended, including this one.
        timeout_s: Seconds after which the process is killed; None for no limit.
        run_id: "" before the run is created.
        epoch: Number of epochs that have been reported.
        value: Metric of the last reported epoch.
        stop_requested_at: Time of `stop` on the monotonic clock.
        timed_out: Whether it was killed because of `timeout_s`.
    """

    job: Job
    process: Any
    pipe: connection.Connection
    started: float
    siblings: list["WorkerProcess"]
    timeout_s: float | None = None
    run_id: str = ""
    epoch: int = 0
    value: float | None = None
    stop_requested_at: float | None = None
    timed_out: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def answer(self, stop: bool) -> None:
        """Send whether the training stops here. It waits for this answer after each epoch."""
        with contextlib.suppress(OSError):  # it may have died since
            self.pipe.send(stop)

    def stop(self) -> None:
        """Ask the process to stop gracefully (SIGTERM)."""
        if self.stop_requested_at is None and self.process.pid is not None:
            for sibling in self.siblings:
                sibling.stop_requested_at = time.monotonic()
            self.process.terminate()

    def kill(self) -> None:
        """Kill the process and all processes that it started."""
        if self.process.pid is not None:
            signal_process_group(self.process.pid, SIGKILL)
            self.process.kill()  # it may not have a group of its own yet


class Pool:
    """A fixed number of slots for worker processes. Leaving the context kills all processes.

    Args:
        workers: Number of slots; each gets an equal share of the CPU cores.
        folder: Folder for job files and logs.
        timeout_s: Seconds after which a process is killed; None for no limit.

    Attributes:
        children: Running trainings.
        stop_requests: 1 stops all trainings gracefully, 2 or more kill them. A signal handler may set it.
    """

    def __init__(self, workers: int, folder: Path, timeout_s: float | None = None) -> None:
        self.workers, self._folder, self._timeout_s = workers, folder, timeout_s
        self.children: list[WorkerProcess] = []
        self.stop_requests = 0
        self._file_numbers = itertools.count()
        self._context: Any = multiprocessing.get_context("forkserver" if FORK_IS_SAFE else "spawn")
        if FORK_IS_SAFE:
            self._context.set_forkserver_preload(PRELOAD)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_all()

    def warm_up(self) -> None:
        """Start the fork server, which imports what all workers need in the background. Only where a fork is safe."""
        if FORK_IS_SAFE:
            with signal_handlers(signal.SIG_IGN, signal.SIGINT):  # the server inherits this: Ctrl-C is not for it
                start_fork_server()

    @property
    def free_slots(self) -> list[int]:
        used = {child.job.slot for child in self.children}
        return [slot for slot in range(self.workers) if slot not in used]

    def start(self, job: Job) -> WorkerProcess:
        """Train a job in a new process, in a free slot."""
        self._assign([job])
        (child,) = self._start([job], train_job, (job,), self._timeout_s)
        return child

    def start_stack(self, jobs: list[Job]) -> list[WorkerProcess]:
        """Train several jobs together in one new process, in a free slot."""
        self._assign(jobs)
        return self._start(jobs, train_stack, (jobs,), self._timeout_s)

    def _assign(self, jobs: list[Job]) -> None:
        """Set the slot, the threads and the files of jobs. Jobs of one process share them."""
        path, slot = self._folder / f"{next(self._file_numbers)}.json", self.free_slots[0]
        for job in jobs:
            job.slot, job.threads, job.log_file = slot, threads_each(self.workers), str(path.with_suffix(".log"))
            write_job(job, path)

    def check(self, job: Job, configurations: list[dict[str, Any]]) -> Message:
        """Check an experiment in a new process, without training it.

        Args:
            job: The experiment.
            configurations: Configurations that must be valid too, each as keys with values.

        Returns:
            The message of `sweeps.workers.worker.check_experiment`, or ("died", reason).
        """
        job.log_file = str(self._folder / "check.log")
        self._start([job], check_experiment, (job, configurations), None)
        while True:
            for _, message in self.events(1.0):
                return message

    def _start(
        self, jobs: list[Job], target: Callable[..., None], args: tuple[Any, ...], timeout_s: float | None
    ) -> list[WorkerProcess]:
        for _ in range(START_TRIES):
            ours, theirs = zip(*(self._context.Pipe() for _ in jobs), strict=True)
            pipes = list(theirs) if target is train_stack else theirs[0]
            process = self._context.Process(target=target, args=(*args, pipes), daemon=False)
            try:
                with self._ctrl_c_ignored():
                    process.start()
            except (EOFError, OSError):  # the fork server has just died
                for pipe in ours:
                    pipe.close()
                self.warm_up()
                continue
            finally:
                for pipe in theirs:
                    pipe.close()
            siblings: list[WorkerProcess] = []
            for job, pipe in zip(jobs, ours, strict=True):
                siblings.append(WorkerProcess(job, process, pipe, time.monotonic(), siblings, timeout_s))
            self.children += siblings
            return list(siblings)
        raise RuntimeError("the fork server for worker processes does not start; is there enough memory?")

    def _ctrl_c_ignored(self) -> contextlib.AbstractContextManager[None]:
        """Have a spawned process ignore Ctrl-C from its start on, as the processes of a fork server do."""
        if FORK_IS_SAFE:
            return contextlib.nullcontext()
        return signal_handlers(signal.SIG_IGN, signal.SIGINT)

    def events(self, timeout: float) -> list[tuple[WorkerProcess, Message]]:
        """Return the messages that need an action: reported epochs, which need an answer, and ended trainings.

        Args:
            timeout: Seconds to wait at most.
        """
        self._enforce_limits()
        pipes = {child.pipe: child for child in self.children}
        received = []
        for pipe in connection.wait(list(pipes), timeout):
            child = pipes[pipe]  # type: ignore[index]
            message = self._receive(child)
            if message[0] == "run":
                child.run_id = message[1]
            elif message[0] == "epoch":
                child.epoch, child.value = message[1:]
                received.append((child, message))
            else:
                self._reap(child)
                received.append((child, message))
        return received

    def kill_all(self) -> None:
        """Kill all processes."""
        for child in list(self.children):
            child.kill()
            self._reap(child)

    def _receive(self, child: WorkerProcess) -> Message:
        try:
            message: Message = child.pipe.recv()
        except (EOFError, OSError):
            child.process.join(10)
            if child.timed_out:
                return "died", f"ran longer than {child.timeout_s:g} s"
            return "died", _cause_of_death(child.process.exitcode)
        return message

    def _reap(self, child: WorkerProcess) -> None:
        """Remove an ended training. After the last training of a process, wait for the process."""
        child.siblings.remove(child)
        if not child.siblings:
            child.process.join(GRACE_S)
            child.kill()  # processes of further devices, and a process that does not exit
            child.process.join()
            child.process.close()
        child.pipe.close()
        self.children.remove(child)

    def _enforce_limits(self) -> None:
        """Kill processes that exceed their time, and stop or kill all if that was requested."""
        for child in self.children:
            requested = child.stop_requested_at
            if child.timeout_s is not None and child.seconds > child.timeout_s and not child.timed_out:
                child.timed_out = True
                child.kill()
            elif self.stop_requests > 1 or (requested is not None and time.monotonic() - requested > GRACE_S):
                child.kill()
            elif self.stop_requests:
                child.stop()


def threads_each(workers: int) -> int:
    """Return the share of this process's CPU cores for each worker, at least 1 and at most OMP_NUM_THREADS."""
    share = max(1, cpu_count() // workers)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdecimal() and int(limit) else share


def _cause_of_death(code: int | None) -> str:
    if code == -SIGKILL:
        return "killed (SIGKILL): by a user, or by the system because memory ran out"
    if code is not None and code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"the process ended without a message (exit code {code})"
