"""Create a run in a helper process, which imports MLflow while this process imports torch.

A run needs its id from the store before its first step. Without this, MLflow would take a fifth of the time until then.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.tracking.client import import_client
from pipelines.tracking.store import NewRun, Store
from pipelines.tracking.uri import store_uri

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_HELPERS: list[tuple[Any, "Connection"]] = []  # at most one, until the run is created


def start(argv: Sequence[str]) -> None:
    """Start the helper process for a command that will create a run, unless nothing would be gained.

    It is a fork, made while this process has no threads and no large libraries. Only Linux, where that is safe.
    """
    asks = not argv or {"-h", "--help", "--full-help", "--print_config"} & set(argv)
    first = "LOCAL_RANK" not in os.environ and not {"mlflow", "torch"} & set(sys.modules)
    safe = sys.platform == "linux" and threading.active_count() == 1
    if asks or not first or not safe or cpu_count() < 2:
        return
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, ours), daemon=True)  # ends with this process
    process.start()
    theirs.close()
    _HELPERS.append((process, ours))


def create_run(store: Store, experiment: str, name: str, tags: Mapping[str, str]) -> NewRun:
    """Create a run in the helper process if it was started, else in this process.

    Raises:
        UserError: See `Store.create_run`.
    """
    answer: NewRun | str | None = None
    try:
        for _, pipe in _HELPERS:
            with contextlib.suppress(EOFError, OSError):  # it died, perhaps for lack of memory
                pipe.send((store.uri, experiment, name, dict(tags)))
                answer = pipe.recv()
    finally:
        stop()
    if isinstance(answer, str):
        raise UserError(answer)
    return answer or store.create_run(experiment, name, tags)


def stop() -> None:
    """End the helper process: the run was created, or there will be none."""
    while _HELPERS:
        process, pipe = _HELPERS.pop()
        pipe.close()
        process.kill()
        process.join()


def _work(pipe: "Connection", other: "Connection") -> None:
    """Import MLflow, then create the one run that is requested."""
    other.close()  # else this process would not notice the death of the other
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C and ends this one
    with contextlib.suppress(UserError):  # the main process reports it
        import_client(store_uri())
    with contextlib.suppress(EOFError, OSError):
        uri, experiment, name, tags = pipe.recv()
        try:
            pipe.send(Store(uri).create_run(experiment, name, tags))
        except UserError as error:
            pipe.send(str(error))
