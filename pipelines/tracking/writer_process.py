"""The process that writes a run to its store, so that a training neither imports MLflow nor waits for it.

It starts before torch is imported, and imports MLflow meanwhile. It creates the run, then follows the run's log. If it
dies it is started again, and continues from the log. Where MLflow is imported already, a thread does the same.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.signals import stop_main_thread
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import NewRun, Store
from pipelines.tracking.tags import KEY_TAG
from pipelines.tracking.writer import FINISH, SEND
from pipelines.tracking.writer_main import write_run

SILENCE_S = 60.0  # without progress, after which the end of a run stops waiting
SLOWEST = 1_000_000  # bytes per second: extra time for large files
QUIET_S = 5.0  # of waiting before a message is printed
RESTARTS = 3  # of a process that dies
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import litlab
from pipelines.tracking.writer_main import main
main()
"""
_STARTED: list["WriterProcess"] = []  # at most one, until its run is created


class WriterProcess:
    """A process that creates and writes one run. Messages in both directions are JSON, one object a line."""

    def __init__(self) -> None:
        modules = json.dumps([str(path) for path in sys.path])
        command = [sys.executable, "-P", "-c", PROGRAM, modules]  # -P: no modules of the current folder
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout, self.pid = self._process.stdin, self._process.stdout, self._process.pid

    def send(self, **message: Any) -> None:
        """Send a message; nothing happens if the process is dead."""
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None if the process is dead."""
        line = self._stdout.readline()
        return dict(json.loads(line)) if line.endswith("\n") else None

    def stop(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # unsent messages
            self._stdin.close()


def start(argv: Sequence[str]) -> None:
    """Start the process for a command that will create a run, unless MLflow is imported already."""
    asks = not argv or {"-h", "--help", "--full-help", "--print_config"} & set(argv)
    if not (asks or "LOCAL_RANK" in os.environ or "mlflow" in sys.modules or _STARTED):
        _STARTED.extend(filter(None, [_new_process()]))


def _new_process() -> WriterProcess | None:
    """Start a process; None if the system cannot, in which case a thread does the same."""
    try:
        return WriterProcess()
    except OSError:
        return None


def stop() -> None:
    """End the process that was started, if no run has been created."""
    while _STARTED:
        _STARTED.pop().stop()


class RunWriter:
    """Has a run written to its store, and waits for that only at the run's end.

    Args:
        store: Where the run is stored.

    Attributes:
        stop_requested: Whether the run was asked to stop by its tag.
        is_ending: Whether the run is ending, so that it is not stopped any more.
        refused: What the store refuses for good, and why; known once the run has ended.
        gone: Whether the run was deleted, which was reported; known once the run has ended.
    """

    def __init__(self, store: Store) -> None:
        self.refused: list[str] = []
        self.gone = self.stop_requested = self.is_ending = False
        self._log_system: Callable[[dict[str, float]], None] | None = None
        self._store, self._home = store, Path()
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()  # of the thread, if there is no process
        self._process = None if "mlflow" in sys.modules else _STARTED.pop() if _STARTED else _new_process()
        self._state = threading.Condition(threading.RLock())
        self._restarts, self._last_request = 0, SEND
        self._patient_until = 0.0
        self._complete: bool | None = None  # None until the writer has finished

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> NewRun:
        """Create the run, exactly once.

        Raises:
            UserError: See `Store.create_run`.
        """
        tags = {**tags, KEY_TAG: uuid.uuid4().hex}
        if self._process is None:
            return self._store.create_run(experiment, name, tags)
        self._process.send(uri=self._store.uri, create={"experiment": experiment, "name": name, "tags": tags})
        answer = self._process.receive()
        if answer is not None and "error" not in answer:
            return NewRun(**answer)
        self.stop()
        if answer is not None:
            raise UserError(answer["error"])
        self._process = None  # it died, perhaps for lack of memory
        return self._store.create_run(experiment, name, tags, retry=True)

    def follow(
        self,
        log: RunLog,
        *,
        new: bool,
        packages: bool = False,
        log_system: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """Have the log sent from now on, see `writer.follow`.

        Args:
            log: The log.
            new: Whether the store has no metrics of the run yet.
            packages: Whether to write the list of packages first.
            log_system: Logs system metrics; None if none are to be measured.
        """
        self._home, self._log_system = log.home, log_system
        if self._process is not None:
            self._send_task(new=new, packages=packages)
        work = self._listen if self._process else partial(self._follow, new, packages)
        threading.Thread(target=work, name="litlab-writer", daemon=True).start()

    def _send_task(self, *, new: bool, packages: bool = False) -> None:
        assert self._process is not None
        system = self._log_system is not None
        self._process.send(uri=self._store.uri, home=str(self._home), new=new, packages=packages, system=system)

    def _follow(self, new: bool, packages: bool = False) -> None:
        pid = os.getpid() if self._log_system is not None else None
        write_run(self._home, self._store, self._requests, self._handle, new=new, packages=packages, pid=pid)

    def request(self, request: str = SEND) -> None:
        """Have unsent data sent soon; see `writer.follow`."""
        with self._state:
            self._last_request = request
            if self._process is None:
                self._requests.put(request)
            else:
                self._process.send(request=request)

    def finish(self) -> bool:
        """Have everything sent and wait for it; return whether it succeeded. Give up if there is no progress."""
        with self._state:
            self.is_ending = True
        self._handle(progress=0)
        self.request(FINISH)
        began, reported = time.monotonic(), False
        with self._state:
            while not self._state.wait_for(lambda: self._complete is not None, timeout=0.5):
                if time.monotonic() > self._patient_until:
                    self._complete = False
                if not reported and time.monotonic() - began > QUIET_S:
                    reported = True
                    logger.info(f"waiting for {redact_credentials(self._store.uri)}")
        self.stop()
        return bool(self._complete)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.stop()

    def _handle(self, **report: Any) -> None:
        """Handle a report of `writer.follow`."""
        if "warning" in report:
            logger.warning("%s", report["warning"])
        if "info" in report:
            logger.info("%s", report["info"])
        if "system" in report and self._log_system is not None:
            self._log_system(report["system"])
        with self._state:
            if "stop" in report and not self.is_ending:
                self.stop_requested = True
                logger.info("the run is asked to stop")
                stop_main_thread()
            if "progress" in report:
                self._patient_until = time.monotonic() + SILENCE_S + report["progress"] / SLOWEST
            if "complete" in report and self._complete is None:
                self._complete, self.refused, self.gone = report["complete"], report["refused"], report["gone"]
            self._state.notify_all()

    def _listen(self) -> None:
        """Handle the reports of the process; start it again if it dies before the run has ended."""
        while self._complete is None and self._process is not None:
            report = self._process.receive()
            if report is not None:
                self._handle(**report)
                continue
            with self._state:
                if self._complete is None:
                    self._restart()
        if self._complete is None:
            self._follow(new=False)

    def _restart(self) -> None:
        """Start a process that continues from the log; without one, the thread does it."""
        self._restarts += 1
        self._process = _new_process() if self._restarts <= RESTARTS else None
        if self._process is not None:
            self._send_task(new=False)
        self.request(self._last_request)
