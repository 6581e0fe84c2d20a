"""The main function of a writer process or thread: sends packages and log of a run, and samples system metrics."""

import contextlib
import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.process import GC_THRESHOLDS, exit_with_parent
from pipelines.tracking.client import import_client
from pipelines.tracking.packages import save_packages
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store
from pipelines.tracking.system_metrics import Sampler
from pipelines.tracking.uri import store_uri
from pipelines.tracking.writer import Report, follow


def write_run(
    home: Path,
    store: Store,
    requests: "queue.SimpleQueue[str]",
    report: Report,
    *,
    new: bool,
    packages: bool,
    pid: int | None,
) -> None:
    """Follow the log of a run; see `writer.follow`.

    Args:
        home: The folder of the log.
        store: Where the run is stored.
        requests: See `writer.follow`.
        report: See `writer.follow`; called with `system=VALUES` too.
        new: Whether the store has no metrics of the run yet.
        packages: Whether to write the list of packages first.
        pid: The process of which system metrics are measured; None for none.
    """
    if packages and (log := RunLog.load(home)):
        with contextlib.suppress(OSError):  # a full disk, which the training reports
            save_packages(log.artifacts)
    sampler = None if pid is None else Sampler(pid, report)
    if sampler is not None:
        sampler.start()
    follow(home, store, new, requests, report)
    if sampler is not None:
        sampler.stop()


def main() -> None:
    """Create a run, then follow its log, as the process at the other end of the pipes requests."""
    gc.set_threshold(*GC_THRESHOLDS)
    for number in (signal.SIGINT, signal.SIGTERM):  # the training ends the run, and this process with it
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    exit_with_parent(parent)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no message
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(messages, requests), daemon=True).start()
    with contextlib.suppress(UserError, ImportError):  # reported when the run is created
        import_client(store_uri())
    lock = threading.Lock()

    def report(**message: Any) -> None:
        with lock:  # system metrics are reported by another thread
            output.write(json.dumps(message) + "\n")
            output.flush()

    message = messages.get()
    store = Store(message["uri"], opened=False)
    if "create" in message:
        try:
            report(**store.create_run(**message["create"])._asdict())
        except UserError as error:
            report(error=str(error))
        importlib.import_module("mlflow.pyfunc")  # takes 0.4 s, which would be missing when the model is logged
        message = messages.get()
    pid = parent if message["system"] else None
    home, new, packages = Path(message["home"]), message["new"], message["packages"]
    write_run(home, store, requests, report, new=new, packages=packages, pid=pid)


def _read(messages: "queue.SimpleQueue[dict[str, Any]]", requests: "queue.SimpleQueue[str]") -> None:
    """Receive messages, and exit when the other process has died."""
    for line in sys.stdin:
        message = json.loads(line)
        if "request" in message:
            requests.put(message["request"])
        else:
            messages.put(message)
    os._exit(1)
