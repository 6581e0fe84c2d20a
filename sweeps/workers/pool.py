"""Pool of worker processes: starts them from a preloaded fork server, receives their messages, and ends them."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import connection
from pathlib import Path
from typing import Any, Self

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.runtime.process import FORK_IS_SAFE, SIGKILL, signal_process_group
from pipelines.runtime.signals import signal_handlers
from pipelines.tracking.mlflow_internals import DATABASE_STORE
from pipelines.tracking.store import Store
from sweeps.workers.gpus import TrainingGpus, sharers
from sweeps.workers.job import Job
from sweeps.workers.multiprocessing_internals import main_not_imported, start_fork_server

PRELOAD = [
    "litlab",  # first: a project may have packages of the names of litlab's
    "sweeps.workers.worker",
    "mlflow.tracking.client",
    DATABASE_STORE,
    "pipelines.evaluation.figures",
]
GRACE_S = 30.0  # from the request to stop until the process is killed
START_TRIES = 3
# ("run", run id, max_epochs), ("epoch", number, value), or the last one: (kind, metrics or reason). On a cluster, the
# kind "lost" means that the node is gone, or the agent there: the training may be given to another.
Message = tuple[Any, ...]


@dataclass
class WorkerProcess:
    """A running training: its job, its process, and what it has reported.

    Attributes:
        process: The process. Stacked jobs share one.
        pipe: Receives the job's messages, and sends the answers.
        started: Start time on the monotonic clock, in seconds. `stop_requested_at` uses the same clock.
        siblings: The jobs of the same process that have not ended, including this one.
        timeout_s: Seconds after which the process is killed; None for no limit.
        run_id: "" before the run is created.
        max_epochs: Number of epochs of the training; None if it has no limit, or before the run is created.
        epoch: Number of epochs that have been reported.
        value: Metric of the last reported epoch.
    """

    job: Job
    process: Any
    pipe: connection.Connection
    started: float
    siblings: list["WorkerProcess"]
    timeout_s: float | None
    run_id: str = ""
    max_epochs: int | None = None
    epoch: int = 0
    value: float | None = None
    stop_requested_at: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def timed_out(self) -> bool:
        return self.timeout_s is not None and self.seconds > self.timeout_s

    def answer(self, stop: bool) -> None:
        """Send whether the training stops here. It waits for this answer after each epoch."""
        with contextlib.suppress(OSError):  # it may have died since
            self.pipe.send(stop)

    def stop(self) -> None:
        """Ask the process to stop gracefully (SIGTERM)."""
        if self.stop_requested_at is None:
            for sibling in self.siblings:
                sibling.stop_requested_at = time.monotonic()
            self.process.terminate()

    def kill(self) -> None:
        """Kill the process and all processes that it started."""
        signal_process_group(self.process.pid, SIGKILL)
        self.process.kill()  # it may not have created its process group yet


class Pool:
    """A fixed number of slots for worker processes. Leaving the context kills all processes.

    Args:
        workers: Number of slots; each gets an equal share of the CPU cores.
        folder: Folder for job files and logs.
        timeout_s: Seconds after which a process is killed; None for no limit.
        system_metrics: Whether the runs measure the machine; see `Run`.

    Attributes:
        children: Running trainings.
        stop_requests: 1 stops all trainings gracefully, 2 or more kill them. A signal handler may set it.
    """

    def __init__(
        self, workers: int, folder: Path, timeout_s: float | None = None, *, system_metrics: bool = False
    ) -> None:
        if workers < 1:
            raise UserError(f"--workers {workers}: expected at least 1")
        self.workers, self._folder, self._timeout_s = workers, folder, timeout_s
        self._system_metrics = system_metrics
        self.children: list[WorkerProcess] = []
        self.stop_requests = 0
        self._file_numbers = itertools.count()
        self._context: Any = multiprocessing.get_context("forkserver" if FORK_IS_SAFE else "spawn")
        if FORK_IS_SAFE:
            self._context.set_forkserver_preload(PRELOAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_all()

    def warm_up(self) -> None:
        """Start the fork server, which imports what all workers need in the background. Only where a fork is safe."""
        if FORK_IS_SAFE:
            with signal_handlers(signal.SIG_IGN, signal.SIGINT):  # the server inherits this: Ctrl-C is not for it
                start_fork_server()

    def use_nodes(self, number: int) -> None:
        """Have each training use so many nodes, its `trainer.num_nodes`.

        Raises:
            UserError: The pool has one node only.
        """
        if number > 1:
            raise UserError(f"trainer.num_nodes is {number}: add --cluster (docs/CLUSTERS.md), or set it to 1")

    def check_store(self, store: Store) -> None:
        """Refuse a tracking store that the workers cannot reach. Those of this machine reach any."""

    @property
    def free_slots(self) -> list[int]:
        used = {child.job.slot for child in self.children}
        return [slot for slot in range(self.workers) if slot not in used]

    def start(self, *jobs: Job) -> None:
        """Train a job, or several stacked ones, in a new process in a free slot."""
        self._gpus.warn()
        path, slot = self._folder / f"{next(self._file_numbers)}.json", self.free_slots[0]
        for job in jobs:
            job.slot, job.threads, job.gpus = slot, threads_each(self.workers), self._gpus.names
            job.system_metrics = self._system_metrics
            job.log_file, job.job_file = str(path.with_suffix(".log")), str(path)
        path.write_text(json.dumps(asdict(jobs[0])))
        self._start(_train, jobs, self._timeout_s)

    def check(self, job: Job, configurations: list[dict[str, Any]]) -> dict[str, Any]:
        """Check an experiment in a new process, also with other configurations (keys with values); train nothing.

        Returns:
            Facts about the experiment; see `sweeps.workers.worker`.

        Raises:
            UserError: The experiment, a key or a value is refused, or the experiment cannot run.
        """
        job.log_file, job.gpus = str(self._folder / "check.log"), self._gpus.names
        job.sharers = max(job.sharers, sharers(self._gpus.names, self.workers))
        self._start(_check, [job], None, configurations)
        while not (received := self.events(1.0)):
            pass
        ((_, (kind, content)),) = received
        if kind != "done":
            raise UserError(content if kind == "refused" else f"the experiment cannot run: {content}")
        facts: dict[str, Any] = content
        self._gpus.check(facts["values"]["trainer.accelerator"], facts["devices"])
        return facts

    @cached_property
    def _gpus(self) -> TrainingGpus:
        return TrainingGpus()

    def _start(
        self, target: Callable[..., None], jobs: Sequence[Job], timeout_s: float | None, *arguments: object
    ) -> None:
        """Call `target(jobs, pipes, *arguments)` in a new process."""
        for _ in range(START_TRIES):
            ours, theirs = zip(*(self._context.Pipe() for _ in jobs), strict=True)
            process = self._context.Process(target=target, args=(jobs, theirs, *arguments), daemon=False)
            try:
                with self._ctrl_c_ignored(), main_not_imported():
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
            return
        raise RuntimeError("the fork server for worker processes does not start; is there enough memory?")

    def _ctrl_c_ignored(self) -> contextlib.AbstractContextManager[None]:
        """Have a spawned process ignore Ctrl-C from its start on, as the processes of a fork server do."""
        if FORK_IS_SAFE:
            return contextlib.nullcontext()
        return signal_handlers(signal.SIG_IGN, signal.SIGINT)

    def events(self, timeout: float) -> list[tuple[WorkerProcess, Message]]:
        """Wait for messages that need an action: reported epochs, which need an answer, and ended trainings."""
        self._enforce_limits()
        pipes: dict[Any, WorkerProcess] = {child.pipe: child for child in self.children}
        received = []
        for pipe in connection.wait(list(pipes), timeout):
            child = pipes[pipe]
            message = self._receive(child)
            if message[0] == "run":
                child.run_id, child.max_epochs = message[1:]
                continue
            if message[0] == "epoch":
                child.epoch, child.value = message[1:]
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
            late = f"ran longer than {child.timeout_s:g} s" if child.timed_out else ""
            child.process.join(10)
            return "died", late or _cause_of_death(child.process.exitcode)
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
            is_late = requested is not None and time.monotonic() - requested > GRACE_S
            if child.timed_out or is_late or self.stop_requests > 1:
                child.kill()
            elif self.stop_requests:
                child.stop()


def _train(jobs: Sequence[Job], pipes: Sequence[connection.Connection]) -> None:
    from sweeps.workers import worker  # in the worker process: the controller imports no torch

    worker.run_jobs(jobs, pipes)


def _check(jobs: Sequence[Job], pipes: Sequence[connection.Connection], configurations: list[dict[str, Any]]) -> None:
    from sweeps.workers import worker

    worker.check_experiment(jobs[0], configurations, pipes[0])


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
