"""Where agents may start: on nodes that have room, on which they can reach the runs and have not failed before."""

import platform
from collections import Counter
from collections.abc import Sequence

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from sweeps.cluster.connection import Head, Node
from sweeps.cluster.place import Place
from sweeps.cluster.remote_agent import RemoteAgent
from sweeps.cluster.shares import Need, spread
from sweeps.workers.pool import START_TRIES


class Finder:
    """Finds room on the nodes of a cluster.

    Args:
        place: The cluster, and what each training needs.

    Attributes:
        head: The head of the cluster.
        nodes: Number of nodes of each training.
        only_here: Whether only nodes of this machine can reach the runs.
    """

    def __init__(self, place: Place) -> None:
        self._place, self.head = place, Head(place.cluster or "")
        self.nodes, self.only_here = 1, False
        self._failures: Counter[str] = Counter()  # agents that did not start, by node

    def need(self) -> Need:
        """Return what each training needs.

        Raises:
            UserError: No node has it, or the head does not answer.
        """
        found = self.head.answer()
        gpus = float(any(node.total[1] for node in found)) if self._place.gpus is None else self._place.gpus
        need = Need(self._place.cpus, gpus)
        if not any(need.slots(*node.total) for node in found):
            have = ", ".join(f"{node.host} {node.total[0]:g} CPUs and {node.total[1]:g} GPUs" for node in found)
            raise UserError(f"--cluster {self._place.cluster}: no node has {need} for a training: {have}")
        return need

    def find(self, need: Need, agents: Sequence[RemoteAgent]) -> list[tuple[Node, int]]:
        """Return nodes on which further agents may start, and the slots of each; none if the head does not answer now.

        Raises:
            UserError: The head has not answered for long, or no agent starts on any node.
        """
        if not agents and max(self._failures.values(), default=0) >= START_TRIES:
            raise UserError(f"--cluster {self._place.cluster}: no agent starts; see the messages above")
        starting = {agent.node.node_id for agent in agents if not agent.is_ready}
        alive = [node for node in self.head.nodes() or () if node.node_id not in starting and self._is_used(node)]
        room = {node.node_id: self._room(node, need, agents) for node in alive}
        slots = spread(room, self._wanted(agents))
        return [(node, slots[node.node_id]) for node in alive if node.node_id in slots]

    def note_failure(self, node: Node, reason: str) -> None:
        """Note that an agent did not start on a node; several times, and the node is left out."""
        self._failures[node.node_id] += 1
        if self._failures[node.node_id] == START_TRIES:
            logger.warning("%s; the node is left out", reason)

    def _wanted(self, agents: Sequence[RemoteAgent]) -> int | None:
        if self._place.workers is None:
            return None
        return self._place.workers * self.nodes - sum(agent.slots for agent in agents)

    def _is_used(self, node: Node) -> bool:
        is_reached = not self.only_here or node.host == platform.node()
        return is_reached and self._failures[node.node_id] < START_TRIES

    def _room(self, node: Node, need: Need, agents: Sequence[RemoteAgent]) -> int:
        """Return for how many further trainings a node has room, besides those of its agents and of other programs."""
        own = sum(agent.slots for agent in agents if agent.node.node_id == node.node_id)
        most = need.slots(*node.total)
        if self.nodes > 1 and self._place.workers is not None:
            most = min(most, self._place.workers)  # no training has two slots of a node
        return max(0, min(most - own, need.slots(*node.free)))
