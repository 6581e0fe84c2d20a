"""Which controllers of a study are alive: each records a heartbeat in the study."""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipelines.runtime.process import pid_namespace, process_exists

if TYPE_CHECKING:
    import optuna

BEAT = "litlab.beat."
BEAT_S = 10.0
SILENT_S = 60.0  # a controller of another machine without a heartbeat for so long is dead


def controller_name() -> str:
    """Return this process's name as a controller: HOST:PID:TIME-NAMESPACE."""
    return f"{platform.node()}:{os.getpid()}:{time.time():.0f}-{pid_namespace()}"


def display_name(controller: str) -> str:
    """Return a controller's name for messages: "process PID on HOST"."""
    host, _, number = controller.rpartition(":")[0].rpartition(":")
    return f"process {number} on {host}" if host else controller


@contextlib.contextmanager
def beating(study: "optuna.Study", controller: str, now: Callable[[], float]) -> Iterator[None]:
    """Record a heartbeat every few seconds from a thread, by the clock that all controllers share.

    At the end, record that the controller has left.
    """
    gone = threading.Event()

    def beat() -> None:
        while not gone.wait(BEAT_S):
            with contextlib.suppress(Exception):  # the storage is unavailable, and may come back
                study.set_user_attr(BEAT + controller, now())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        gone.set()
        thread.join()
        with contextlib.suppress(Exception):  # likewise; the others will notice
            study.set_user_attr(BEAT + controller, 0.0)


def alive_controllers(study: "optuna.Study", now: float) -> list[str]:
    """Return the controllers of a study that are alive.

    `now` is the shared time, read before the study: a pause between the two must not make a controller look dead.
    """
    beats = {key.removeprefix(BEAT): value for key, value in study.user_attrs.items() if key.startswith(BEAT)}
    return [name for name, last in beats.items() if is_alive(name, now - float(last))]


def is_alive(controller: str, silent_s: float) -> bool:
    """Return whether a controller is alive: by its process if visible from here, and by its last heartbeat."""
    host, pid, since = controller.rsplit(":", 2)
    is_visible = host == platform.node() and since.partition("-")[2] == pid_namespace() != ""
    if is_visible and not process_exists(int(pid)):
        return False
    return silent_s < SILENT_S
