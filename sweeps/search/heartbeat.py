"""Which controllers of a study are alive: each records a heartbeat in the study."""

import contextlib
import platform
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.runtime.process import pid_namespace, process_exists
from sweeps.search.storage import server_time

if TYPE_CHECKING:
    import optuna

BEAT = "litlab.beat."
BEAT_S = 10.0
SILENT_S = 60.0  # a controller of another machine without a heartbeat for so long is dead


def beat(study: "optuna.Study", controller: str) -> None:
    """Record that a controller is alive."""
    study.set_user_attr(BEAT + controller, server_time(study._storage))


@contextlib.contextmanager
def beating(study: "optuna.Study", controller: str) -> Iterator[None]:
    """Record a heartbeat every few seconds from a thread; at the end, record that the controller has left."""
    gone = threading.Event()

    def go_on() -> None:
        while not gone.wait(BEAT_S):
            with contextlib.suppress(Exception):  # the storage is unavailable, and may come back
                beat(study, controller)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        gone.set()
        thread.join()
        with contextlib.suppress(Exception):  # likewise; the others will notice
            study.set_user_attr(BEAT + controller, 0.0)


def at_work(study: "optuna.Study") -> list[str]:
    """Return the controllers of a study that are alive."""
    now = server_time(study._storage)  # first: a pause between the two calls must not make a controller look dead
    attributes = study.user_attrs
    names = [key.removeprefix(BEAT) for key in attributes if key.startswith(BEAT)]
    return [name for name in names if is_alive(name, now - float(attributes[BEAT + name]))]


def is_alive(controller: str, silent_s: float) -> bool:
    """Return whether a controller is alive: by its process if visible from here, and by its last heartbeat."""
    host, pid, since = controller.rsplit(":", 2)
    is_visible = host == platform.node() and since.partition("-")[2] == pid_namespace() != ""
    if is_visible and not process_exists(int(pid)):
        return False
    return silent_s < SILENT_S


def called(controller: str) -> str:
    """Return a controller's name for messages: "process PID on HOST"."""
    host, _, number = controller.rpartition(":")[0].rpartition(":")
    return f"process {number} on {host}" if host else controller
