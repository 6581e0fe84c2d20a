"""Child processes, side by side: started warm, listened to, and ended, whatever happens to them."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, util
from pathlib import Path
from typing import Any

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import signal_handlers
from sweeps.workers import entrypoints
from sweeps.workers.entrypoints import train_job, train_stack
from sweeps.workers.job import Job, write_job

PRELOAD = [
    "sweeps.workers.worker",
    "mlflow.tracking.client",
    "mlflow.store.tracking.sqlalchemy_store",
    "pipelines.evaluation.figures",
]
SOCKET, LONGEST_SOCKET = "/pymp-12345678/listener-12345678", 103  # bytes of a path: macOS; Linux takes four more
GRACE_S = 30.0  # from being asked to stop to being stopped
START_TRIES = 3
Message = tuple[Any, ...]


@dataclass
class WorkerProcess:
    """A training, its process, what it was told, and what it has said so far.

    Attributes:
        siblings: The trainings of the same process that have not ended, itself among them.
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
        """Tell it whether its training ends here; it waits for that after each epoch."""
        with contextlib.suppress(OSError):  # it may have died since it asked
            self.pipe.send(stop)

    def stop(self) -> None:
        """Ask it to end properly."""
        if self.stop_requested_at is None and self.process.pid is not None:
            for sibling in self.siblings:
                sibling.stop_requested_at = time.monotonic()
            _signal(os.kill, self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it has started."""
        if self.process.pid is not None:
            _signal(os.killpg, self.process.pid, signal.SIGKILL)
            _signal(os.kill, self.process.pid, signal.SIGKILL)  # it may not have a group of its own yet


class Pool:
    """As many processes at a time as there are slots, each with its share of the machine; as a context, it leaves none.

    Args:
        workers: How many slots.
        folder: For specifications and logs.
        timeout_s: Seconds after which a process is ended; None for no limit.

    Attributes:
        stop_requests: How often everything was to end: once properly, twice at once. A signal handler may count it up.
    """

    def __init__(self, workers: int, folder: Path, timeout_s: float | None = None) -> None:
        self.workers, self._folder, self._timeout_s = workers, folder, timeout_s
        self.children: list[WorkerProcess] = []
        self.stop_requests = 0
        self._numbers = itertools.count()  # of specifications, for the names of their files
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_all()

    def warm_up(self) -> None:
        """Have the server import what all processes need, while this one does other things."""
        from multiprocessing import forkserver

        _keep_sockets_short()
        with signal_handlers(signal.SIG_IGN, signal.SIGINT):  # Ctrl-C is not for the server, which takes this over
            forkserver.ensure_running()

    @property
    def free_slots(self) -> list[int]:
        """The slots that nobody uses."""
        return [slot for slot in range(self.workers) if slot not in {child.job.slot for child in self.children}]

    def start(self, job: Job) -> WorkerProcess:
        """Begin a training in a process of its own, in a free slot."""
        self._settle([job])
        (child,) = self._start([job], train_job, (job,), self._timeout_s)
        return child

    def start_stack(self, jobs: list[Job]) -> list[WorkerProcess]:
        """Begin several trainings as one in a process of their own, in a free slot."""
        self._settle(jobs)
        return self._start(jobs, train_stack, (jobs,), self._timeout_s)

    def _settle(self, jobs: list[Job]) -> None:
        """Give trainings their slot and files; those of one process share them."""
        path, slot = self._folder / f"{next(self._numbers)}.json", self.free_slots[0]
        for job in jobs:
            job.slot, job.threads, job.log_file = slot, threads_each(self.workers), str(path.with_suffix(".log"))
            write_job(job, path)

    def check(self, job: Job, ends: list[dict[str, Any]]) -> Message:
        """Look at an experiment, in a process of its own; returns what it says."""
        job.log_file = str(self._folder / "check.log")
        self._start([job], entrypoints.check_experiment, (job, ends), None)
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
                process.start()
            except (EOFError, OSError):  # the server has died just now
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
        raise RuntimeError("the server that starts processes does not live; is there memory for it?")

    def events(self, timeout: float) -> list[tuple[WorkerProcess, Message]]:
        """What the children say, waited for at most so many seconds; a child that is gone has said its last."""
        self._enforce_limits()
        pipes = {child.pipe: child for child in self.children}
        heard = []
        for pipe in connection.wait(list(pipes), timeout):
            child = pipes[pipe]  # type: ignore[index]
            message = self._receive(child)
            if message[0] == "run":
                child.run_id = message[1]
            elif message[0] == "epoch":
                child.epoch, child.value = message[1:]
                heard.append((child, message))
            else:
                self._reap(child)
                heard.append((child, message))
        return heard

    def kill_all(self) -> None:
        """End everything at once."""
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
            return "died", _death(child.process.exitcode)
        return message

    def _reap(self, child: WorkerProcess) -> None:
        """Wait for the end of a process whose trainings have all said their last; it has nothing more to do."""
        child.siblings.remove(child)
        if not child.siblings:
            child.process.join(GRACE_S)
            child.kill()  # the other processes of a training on several devices, or one that does not end
            child.process.join()
            child.process.close()
        child.pipe.close()
        self.children.remove(child)

    def _enforce_limits(self) -> None:
        """Those that take too long, or all, if that is wanted."""
        for child in self.children:
            asked = child.stop_requested_at
            if child.timeout_s is not None and child.seconds > child.timeout_s and not child.timed_out:
                child.timed_out = True
                child.kill()
            elif self.stop_requests > 1 or (asked is not None and time.monotonic() - asked > GRACE_S):
                child.kill()
            elif self.stop_requests:
                child.stop()


def threads_each(workers: int) -> int:
    """The share of this process's CPU cores that each of the workers gets, at least one."""
    share = max(1, cpu_count() // workers)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wanted)) if wanted.isdecimal() and int(wanted) else share


def _keep_sockets_short() -> None:
    """Have multiprocessing keep its sockets in /tmp, if their paths were too long in the folder for temporary files.

    Such a folder comes from a scheduler, which makes one for each job. Later versions of Python do this themselves.
    """
    if len(os.fsencode(tempfile.gettempdir())) + len(SOCKET) <= LONGEST_SOCKET:
        return
    former, tempfile.tempdir = tempfile.tempdir, "/tmp"  # noqa: S108 -- for a folder that mkdtemp keeps private
    try:
        util.get_temp_dir()  # is made once, and removed at the end
    except OSError as error:
        raise UserError(
            f"the folder for temporary files, {former}, is too long a path for sockets, and /tmp cannot be used "
            f"({error.strerror}): set TMPDIR to a shorter one"
        ) from error
    finally:
        tempfile.tempdir = former


def _death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed (SIGKILL): by hand, or by the system because memory ran out"
    if code is not None and code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"the process ended without a word (exit code {code})"


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have gone
        send(pid, number)
