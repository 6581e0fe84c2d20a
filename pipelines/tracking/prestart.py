"""The creation of a run in a process of its own, which imports MLflow while this one imports torch.

A run has its id from the store before its first step. Without this, a fifth of the time until then would be MLflow's.
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
from pipelines.tracking.store import NewRun, Store
from pipelines.tracking.uri import import_client, store_uri

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_HELPERS: list[tuple[Any, "Connection"]] = []  # one, until it has been asked


def start(argv: Sequence[str]) -> None:
    """Begin the process, for a command that will create a run; not where nothing would be gained.

    It is a fork, while this process has no threads and no large libraries: only where that is safe, which is Linux.
    """
    asks = not argv or {"-h", "--help", "--full-help", "--print_config"} & set(argv)
    first = "LOCAL_RANK" not in os.environ and not {"mlflow", "torch"} & set(sys.modules)
    safe = sys.platform == "linux" and threading.active_count() == 1
    if asks or not first or not safe or cpu_count() < 2:
        return
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, ours), daemon=True)  # ends with this one
    process.start()
    theirs.close()
    _HELPERS.append((process, ours))


def create_run(store: Store, experiment: str, name: str, tags: Mapping[str, str]) -> NewRun:
    """Create a run: there, if that process has been started, else here.

    Raises:
        UserError: See `Store.create_run`.
    """
    answer: NewRun | str | None = None
    try:
        for _, pipe in _HELPERS:
            with contextlib.suppress(EOFError, OSError):  # it is gone: the memory did not suffice, perhaps
                pipe.send((store.uri, experiment, name, dict(tags)))
                answer = pipe.recv()
    finally:
        stop()
    if isinstance(answer, str):
        raise UserError(answer)
    return answer or store.create_run(experiment, name, tags)


def stop() -> None:
    """End the process: there will be no run, or it has been created."""
    while _HELPERS:
        process, pipe = _HELPERS.pop()
        pipe.close()
        process.kill()
        process.join()


def _work(pipe: "Connection", other: "Connection") -> None:
    """Import what it takes, then create the one run that is asked for."""
    other.close()  # else this process would not see that the other one has gone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other one, which ends this
    with contextlib.suppress(UserError):  # the other one says it
        import_client(store_uri())
    with contextlib.suppress(EOFError, OSError):
        uri, experiment, name, tags = pipe.recv()
        try:
            pipe.send(Store(uri).create_run(experiment, name, tags))
        except UserError as error:
            pipe.send(str(error))
