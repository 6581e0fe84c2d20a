"""The connection to a Ray cluster, and its nodes."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import restored_signals
from pipelines.runtime.text import first_line
from sweeps.cluster.ray_internals import available_resources

TOKEN = "The token of this process must be that of the cluster, see docs/CLUSTERS.md"


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        node_id: Ray's id.
        host: Its host name.
        total: CPUs and GPUs that it has.
        free: CPUs and GPUs of these that no Ray program uses.
    """

    node_id: str
    host: str
    total: tuple[float, float]
    free: tuple[float, float]


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[None]:
    """Connect this process to a cluster, see `Place`; a local one ends with the block.

    Raises:
        UserError: No cluster answers there, or it refuses this process.
    """
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
        with restored_signals(signal.SIGTERM):
            ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for two minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--cluster {address}: no Ray head answers there ({first_line(error)})") from error


def nodes() -> list[Node]:
    """Return the nodes that are alive."""
    free = available_resources()
    return [
        Node(
            node_id=str(node["NodeID"]),
            host=str(node["NodeManagerHostname"]),
            total=_amounts(node["Resources"]),
            free=_amounts(free.get(node["NodeID"], {})),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


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
