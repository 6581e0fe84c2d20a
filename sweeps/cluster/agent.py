"""The agent of a node, or of a share of it: trains in the slots of a pool. Ray calls its methods, each in a thread.

It does not import Ray. All arguments and results are plain values.
"""

import contextlib
import os
import platform
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing import Pipe, connection
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from sweeps.cluster.folders import agent_folder
from sweeps.cluster.gpus import take_gpus
from sweeps.workers.gpus import listed_gpus, sharers
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, Pool, WorkerProcess

POLL_S = 1.0  # between two looks at time limits
MAX_LOG = 1_000_000  # bytes of a training's output that the controller gets
# By these, Lightning would take a training for one task of a job of several, in which `srun` has started Ray.
TASK_VARIABLES = ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
ENDED_WELL = ("done", "pruned")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")
# ("start", numbers of the trainings, jobs), ("answer", number, whether to stop), ("kill", number, None), or
# ("stop", number of requests, None)
Command = tuple[str, Any, Any]
Event = tuple[int, Message, str]  # number of a training, its message, and its output if it failed


class Agent:
    """Trains on a node.

    Args:
        slots: Trainings in parallel.
        gpus: GPUs of each, perhaps a fraction; 0 hides those of the node.
        threads: CPU threads of each, at most.
        timeout_s: See `Pool`.
        system_metrics: See `Pool`.
        variables: Environment variables for the trainings.
        code: Folder with the project's unpacked source files, which `close` deletes; None if the node has the project.
    """

    def __init__(
        self,
        slots: int,
        gpus: float,
        threads: int,
        timeout_s: float | None,
        *,
        system_metrics: bool,
        variables: Mapping[str, str],
        code: str | None = None,
    ) -> None:
        for name in TASK_VARIABLES:
            os.environ.pop(name, None)
        os.environ |= {**variables, "OMP_NUM_THREADS": str(threads)}
        # The fork server starts below: trainings have its environment.
        slots, self._used_gpus = take_gpus(slots, gpus)
        self._opened = contextlib.ExitStack()
        folder = self._opened.enter_context(agent_folder(code))
        self._slots, self._checks = slots, Pool(1, folder)
        self._pool = Pool(max(1, slots), folder, timeout_s, system_metrics=system_metrics)
        self._pool.warm_up()
        self._children: dict[int, WorkerProcess] = {}  # by number
        self._runs: set[int] = set()  # numbers of the trainings whose run the controller knows
        self._refused: list[Event] = []
        self._lock, self._is_closed = threading.Lock(), False
        self._waked, self._wake = Pipe(duplex=False)

    def facts(self) -> dict[str, Any]:
        """Return the number of slots, what others use of the GPUs that are left out, and what may be wrong here."""
        return {"slots": self._slots, "used": self._used_gpus, "version": version("litlab"), "nice": os.nice(0)}

    def check(self, job: dict[str, Any], configurations: list[dict[str, Any]]) -> Message:
        """Check an experiment, see `Pool.check`; return ("done", facts) or ("refused", reason)."""
        checked = local_job(job)
        checked.sharers = sharers(listed_gpus() or [], max(1, self._slots))
        try:
            return "done", self._checks.check(checked, configurations)
        except UserError as error:
            return "refused", str(error)

    def free_port(self) -> int:
        """Return a port that nothing uses now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def exchange(self, commands: Sequence[Command]) -> list[Event]:
        """Carry out commands, and wait for the next events. Only one call may wait at a time."""
        self.act(commands)
        while not self._is_closed:
            with contextlib.suppress(OSError):  # `kill_all` has just closed a pipe
                connection.wait([self._waked, *(child.pipe for child in list(self._pool.children))], POLL_S)
            with self._lock:
                if events := self._events():
                    return events
        return []

    def act(self, commands: Sequence[Command]) -> None:
        """Carry out commands, also while `exchange` waits."""
        with self._lock:
            for command, what, value in commands:
                if command == "start":
                    self._start(what, value)
                elif command == "answer" and what in self._children:
                    self._children[what].answer(value)
                elif command == "kill" and what in self._children:
                    self._children[what].kill()
                elif command == "stop":
                    self._pool.stop_requests = what
            self._wake.send_bytes(b"1")

    def kill_all(self) -> None:
        """Kill all trainings, and forget them."""
        with self._lock:
            self._pool.kill_all()
            self._children.clear()

    def close(self) -> None:
        """Kill all trainings, delete the files, and end the call that waits. Nothing can be called afterwards."""
        self.kill_all()
        self._opened.close()
        self._is_closed = True
        self._wake.send_bytes(b"1")

    def _start(self, numbers: Sequence[int], values: Sequence[dict[str, Any]]) -> None:
        try:
            self._pool.start(*map(local_job, values))
        except (UserError, RuntimeError, OSError) as error:
            kind = "refused" if isinstance(error, UserError) else "lost"
            self._refused += [(number, (kind, str(error)), "") for number in numbers]
            return
        self._children |= dict(zip(numbers, self._pool.children[-len(numbers) :], strict=True))

    def _events(self) -> list[Event]:
        while self._waked.poll():
            self._waked.recv_bytes()
        received = self._pool.events(0)
        events, self._refused = self._refused, []
        for number, child in self._children.items():
            if child.run_id and number not in self._runs:
                self._runs.add(number)
                events.append((number, ("run", child.run_id, child.max_epochs), ""))
        numbers = {id(child): number for number, child in self._children.items()}
        for child, message in received:
            number, kind = numbers[id(child)], message[0]
            events.append((number, message, "" if kind in ENDED_WELL or kind == "epoch" else _log_of(child.job)))
            if kind != "epoch":
                del self._children[number]
        return events


def local_job(values: Mapping[str, Any]) -> Job:
    """Return a job for this node: in the values of its data keys, $NAME is replaced by the environment variable.

    Raises:
        UserError: The node has no such variable.
    """
    job, is_value = Job(**values), False
    for place, argument in enumerate(job.arguments):
        is_data = argument.startswith("--data.")
        if is_data or is_value:
            job.arguments[place] = VARIABLE.sub(_variable, argument)
        is_value = is_data and "=" not in argument
    return job


def _variable(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    if name not in os.environ:
        raise UserError(f"node {platform.node()} has no environment variable {name}, which a key of the data names")
    return os.environ[name]


def _log_of(job: Job) -> str:
    """Return the output of a training, or its end if it is long."""
    with contextlib.suppress(OSError), Path(job.log_file).open("rb") as log:
        log.seek(max(0, Path(job.log_file).stat().st_size - MAX_LOG))
        return log.read().decode(errors="replace")
    return ""
