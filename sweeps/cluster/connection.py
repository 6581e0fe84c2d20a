"""The connection to a Ray cluster, and its nodes."""

import atexit
import contextlib
import math
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import restored_signals
from pipelines.runtime.text import first_line
from sweeps.cluster.ray_internals import node_table

ANSWER_S = 3.0  # for an answer of the head
LOST_S = 25.0  # without an answer until the head is given up; Ray ends a process whose head is dead after 60 s
GAP_S = 6.0  # between two questions that count as time without an answer; in a longer one, this process was frozen
SHUTDOWN_S = 10.0  # for the end of a connection to a head that is dead
TOKEN = "The token of this process must be that of the cluster, see docs/CLUSTERS.md"


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        node_id: Ray's id.
        host: Its host name.
        address: Its address, at which other nodes reach it.
        total: CPUs and GPUs that it has.
        free: CPUs and GPUs of these that no Ray program uses.
    """

    node_id: str
    host: str
    address: str
    total: tuple[float, float]
    free: tuple[float, float]


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[None]:
    """Connect this process to a cluster, see `Place`; a local one ends with the block.

    Raises:
        UserError: No cluster answers there, it refuses this process, or this process is connected to one.
    """
    if ray.is_initialized():
        already = "this process is connected to a Ray cluster already, until it calls ray.shutdown()"
        raise UserError(f"--cluster {cluster}: {already}")
    if cluster not in ("local", "auto"):
        _check_address(cluster)
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpu_count()} if cluster == "local" else {}
    try:
        with restored_signals(signal.SIGTERM):  # Ray sets its own handler
            ray.init(cluster, log_to_driver=False, configure_logging=False, **own)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        hint = "" if cluster == "local" else f". {TOKEN}"
        raise UserError(f"--cluster {cluster}: {first_line(error).rstrip('.')}{hint}") from error
    try:
        yield
    finally:
        if Head(cluster).nodes() is None:
            _leave_silent_head()
        else:
            with restored_signals(signal.SIGTERM):
                ray.shutdown()


def _leave_silent_head() -> None:
    """Disconnect from a head that does not answer. If it is frozen, Ray would wait for it for ever, also at exit."""
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(SHUTDOWN_S)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for two minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--cluster {address}: no Ray head answers there ({first_line(error)})") from error


class HeadLostError(UserError):
    """The head of the cluster does not answer."""

    exit_code = 1


class Head:
    """The head of a cluster, which knows the nodes.

    Args:
        cluster: The cluster, as the user named it.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster, self._silence, self._asked = cluster, 0.0, math.inf

    def nodes(self) -> list[Node] | None:
        """Return the nodes that are alive; None if the head does not answer now.

        Raises:
            HeadLostError: It has not answered for LOST_S. If it is dead, Ray soon ends this process.
        """
        self._asked = min(self._asked, time.monotonic())  # or earlier: when it did not answer the last question
        try:
            found = [Node(*names, *map(_amounts, amounts)) for names, amounts in node_table(ANSWER_S)]
        except ray.exceptions.RpcError as error:
            self._silence += min(time.monotonic() - self._asked, GAP_S)
            self._asked = time.monotonic()
            if self._silence < LOST_S:
                return None
            lost = "Ray's head does not answer. Run the same command again to continue, on this or another cluster."
            raise HeadLostError(f"--cluster {self._cluster}: {lost}") from error
        self._silence, self._asked = 0.0, math.inf
        return found

    def answer(self) -> list[Node]:
        """Wait for the nodes.

        Raises:
            HeadLostError: See `nodes`.
        """
        while (found := self.nodes()) is None:
            time.sleep(1)
        return found


def _amounts(resources: dict[str, float]) -> tuple[float, float]:
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def describe(error: ray.exceptions.RayError) -> str:
    """Return in one line what has happened to an agent."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ray.exceptions.ActorDiedError):
        in_start = any("creation task" in line for line in lines)
        return f"its agent does not start: {lines[-1].strip()}" if in_start else "its agent died, or the node"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its agent cannot be reached"
    return first_line(error.__cause__ or error)
