"""An agent as the controller sees it: the actor of Ray, its trainings, and the commands that wait to be sent."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.runtime.log import logger
from sweeps.cluster.actor import actor_class
from sweeps.cluster.agent import Command
from sweeps.cluster.connection import Node
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, WorkerProcess

CALLS = 8  # of an agent's methods at a time
PORT_S = 10.0  # in which an agent finds a free port


@dataclass(eq=False)
class RemoteTraining(WorkerProcess):
    """A training on a node. Its process and pipe are those of the agent.

    Attributes:
        number: By which its agent knows it.
        agent: Its agent.
        group: The processes of a training over several nodes, the first one first; empty for a training on one node.
        fault: Of the first one: why another one has ended.
        kill_at: Of the first one: when it is killed for that, on the monotonic clock in seconds.
    """

    number: int = 0
    agent: "RemoteAgent | None" = None
    group: list["RemoteTraining"] = field(default_factory=list)
    fault: Message | None = None
    kill_at: float = 0.0

    def answer(self, stop: bool) -> None:
        assert self.agent is not None
        self.agent.command("answer", self.number, stop)

    def kill(self) -> None:
        """Have the agent kill it, if it is still there."""
        assert self.agent is not None
        if self.number in self.agent.trainings:
            self.agent.command("kill", self.number)


class RemoteAgent:
    """An agent on a node, which Ray starts as soon as the node has the CPUs and GPUs.

    Args:
        node: The node.
        slots: Trainings in parallel.
        cpus: CPUs of each.
        gpus: GPUs of each.
        code: The project's code, see `pack_code`.
        settings: Arguments of `Agent`, besides slots and gpus.

    Attributes:
        is_ready: Whether it has started.
        reply: The answer to the last call that waits for events.
        trainings: Its trainings, by number.
    """

    def __init__(
        self, node: Node, slots: int, cpus: float, gpus: float, code: Sequence[Any], settings: Mapping[str, Any]
    ) -> None:
        self.node, self.slots, self.is_ready = node, slots, False
        self.trainings: dict[int, RemoteTraining] = {}
        self._commands: list[Command] = []
        self._numbers = itertools.count()
        options = {"num_cpus": slots * cpus, "num_gpus": slots * gpus, "max_concurrency": CALLS}
        place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        actor: Any = ray.remote(actor_class()).options(  # Ray restarts and repeats nothing: the controller does
            **options, scheduling_strategy=place, max_restarts=0, max_task_retries=0
        )
        self._actor: Any = actor.remote(*code, {"slots": slots, "gpus": gpus, **settings})
        self.reply = self.call("facts")

    @property
    def free_slots(self) -> int:
        """Number of further trainings that it can start; stacked ones share a slot."""
        if not self.is_ready:
            return 0
        return self.slots - len({id(training.siblings) for training in self.trainings.values()})

    def welcome(self, facts: Mapping[str, Any]) -> None:
        """Take what it says when it has started; an agent with another version of litlab has no slots."""
        host, self.is_ready, self.slots = self.node.host, True, facts["slots"]
        for gpu, memory in facts["used"].items():
            logger.warning("node %s: GPU %s is left out: other programs use %s of its memory", host, gpu, memory)
        if facts["version"] != (own := version("litlab")):
            logger.warning("node %s is left out: it has litlab %s, this machine %s", host, facts["version"], own)
            self.slots = 0
        if facts["nice"]:
            warning = "node %s: trainings have nice %d: set RAY_worker_niceness=0 for ray start"
            logger.warning(warning, host, facts["nice"])

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the agent; return Ray's reference to its result."""
        return self._actor.call.remote(method, *arguments)

    def free_port(self) -> int:
        """Return a port of its node that nothing uses now; 0 if the agent does not answer."""
        try:
            return int(ray.get(self.call("free_port"), timeout=PORT_S))
        except RayError:
            return 0

    def start(self, jobs: Sequence[Job]) -> list[RemoteTraining]:
        """Start a job, or several stacked ones, in a free slot."""
        siblings: list[WorkerProcess] = []
        started = [
            RemoteTraining(job, None, None, time.monotonic(), siblings, None, number=number, agent=self)  # type: ignore[arg-type]
            for job, number in zip(jobs, self._numbers, strict=False)
        ]
        siblings += started
        self.trainings |= {training.number: training for training in started}
        self.command("start", [training.number for training in started], [asdict(job) for job in jobs])
        return started

    def command(self, name: str, what: Any, value: Any = None) -> None:
        """Have the agent carry out a command, which `flush` sends."""
        self._commands.append((name, what, value))

    def flush(self) -> None:
        """Send the commands, and ask for events unless the last question is not answered yet."""
        if not self.is_ready:
            return
        if self.reply is None:
            self.reply = self.call("exchange", self._commands)
        elif self._commands:
            self.call("act", self._commands)  # if it fails, so does the call that waits
        self._commands = []

    def remove(self, training: RemoteTraining) -> None:
        """Forget a training that has ended."""
        del self.trainings[training.number]
        training.siblings.remove(training)

    def kill(self) -> None:
        """Kill the agent. Its trainings end when they notice it."""
        ray.kill(self._actor)
