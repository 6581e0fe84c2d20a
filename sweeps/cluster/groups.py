"""A training over several nodes: a process on each. The first one has the run, and is all that the pool's user sees."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import nlargest

from sweeps.cluster.remote_agent import RemoteAgent, RemoteTraining
from sweeps.workers.job import Job
from sweeps.workers.pool import Message

GRACE_S = 5.0  # time for the first process to fail by itself after another process has failed
GONE = ("died", "lost")


def room(slots: Iterable[int], nodes: int) -> int:
    """Return how many trainings over so many different nodes have room on nodes with these numbers of slots."""
    slots = list(slots)
    fitting = (number for number in range(sum(slots) // nodes, 0, -1) if _has_room(slots, nodes, number))
    return next(fitting, 0)


def _has_room(slots: Sequence[int], nodes: int, number: int) -> bool:
    return sum(min(own, number) for own in slots) >= nodes * number


def slots_by_node(agents: Iterable[RemoteAgent], *, free: bool) -> Counter[str]:
    """Return how many slots, or free ones, the agents have on each node."""
    slots = Counter[str]()
    for agent in agents:
        slots[agent.node.node_id] += agent.free_slots if free else agent.slots if agent.is_ready else 0
    return slots


def choose(agents: Sequence[RemoteAgent], nodes: int) -> list[RemoteAgent]:
    """Return an agent on each of so many nodes, those with the most free slots."""
    free = slots_by_node(agents, free=True)
    return [
        max((agent for agent in agents if agent.node.node_id == node), key=lambda agent: agent.free_slots)
        for node in nlargest(nodes, free, key=lambda node: free[node])
    ]


def start_group(job: Job, agents: Sequence[RemoteAgent]) -> RemoteTraining:
    """Start a training with a process on the node of each agent; return the first one.

    If the first agent does not answer, the training will be lost with it.
    """
    address = f"{agents[0].node.address}:{agents[0].free_port()}"
    group: list[RemoteTraining] = []
    for rank, agent in enumerate(agents):
        (training,) = agent.start([replace(job, nodes=len(agents), node_rank=rank, main_address=address)])
        training.group = group
        group.append(training)
    group[0].job = job  # whose log file is that of the first process
    return group[0]


def is_first(training: RemoteTraining) -> bool:
    """Return whether a process is the first of its training, or the only one."""
    return not training.group or training is training.group[0]


def end_others(first: RemoteTraining) -> None:
    """Kill the other processes of a training whose first one has ended; if it went well, they have ended before."""
    for training in first.group[1:]:
        training.kill()


def on_end_of_other(training: RemoteTraining, message: Message) -> None:
    """Note why a process other than the first has ended, unless the training went well or was stopped."""
    first, (kind, reason) = training.group[0], message
    if kind not in ("done", "stopped") and first.fault is None:
        assert training.agent is not None
        host = training.agent.node.host
        first.fault = kind, reason if kind == "lost" else f"node {host}: {reason}"
        first.kill_at = time.monotonic() + (GRACE_S if kind == "failed" else 0.0)


def kill_faulty(trainings: Iterable[RemoteTraining]) -> None:
    """Kill the first process where another one has ended: it may wait for that for half an hour."""
    for first in trainings:
        if first.fault is not None and time.monotonic() > first.kill_at:
            first.kill()
            first.kill_at = math.inf


def last_message(first: RemoteTraining, message: Message) -> Message:
    """Return the last message of a training: that of its first process, or why this one had to be killed."""
    is_cause = first.fault is not None and (first.fault[0] in GONE or message[0] == "died")
    return first.fault if first.fault is not None and is_cause and message[0] != "done" else message
