"""The pool of a cluster: an agent on each node, or on the share of it that is free, has the slots of that node."""

import contextlib
import math
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from sweeps.cluster.code import pack_code
from sweeps.cluster.connection import connected, describe
from sweeps.cluster.finder import Finder
from sweeps.cluster.groups import (
    choose,
    end_others,
    is_first,
    kill_faulty,
    last_message,
    on_end_of_other,
    room,
    slots_by_node,
    start_group,
)
from sweeps.cluster.place import Place
from sweeps.cluster.remote_agent import RemoteAgent, RemoteTraining
from sweeps.workers.job import Job
from sweeps.workers.pool import GRACE_S, START_TRIES, Message, Pool, WorkerProcess

LOOK_S = 2.0  # between two looks for nodes that have joined
WAIT_S = 20.0  # after which a message says what is waited for
ANSWER_S = 15.0  # in which an agent has to kill its trainings
SENT_VARIABLES = ("MLFLOW_", "LITLAB_NO_CODE")  # prefixes of environment variables that agents get

Event = tuple[WorkerProcess, Message]


class ClusterPool(Pool):
    """A pool on the nodes of a Ray cluster, which may join and leave at any time.

    An agent that dies, or whose node does, loses its trainings: `events` then has the message ("lost", reason). Ray
    does not restart anything.

    Args:
        place: The cluster, and what each training needs.
        folder: Folder for the output of trainings that fail.
        timeout_s: See `Pool`.
        system_metrics: See `Pool`.
    """

    def __init__(
        self, place: Place, folder: Path, timeout_s: float | None = None, *, system_metrics: bool = False
    ) -> None:
        super().__init__(1, folder, timeout_s)
        self.workers = 0
        self._place = place
        self._settings: dict[str, Any] = {"timeout_s": timeout_s, "system_metrics": system_metrics}
        self._finder = Finder(place)
        self._agents: list[RemoteAgent] = []
        self._opened = contextlib.ExitStack()
        self._is_waiting = False
        self._stops_sent, self._stop_by, self._look_after = 0, 0.0, 0.0

    def __exit__(self, *error: object) -> None:
        closing = [agent.call("close") for agent in self._agents if agent.is_ready]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=ANSWER_S)
        for agent in self._agents:
            agent.kill()
        self._opened.close()

    def warm_up(self) -> None:
        """Connect to the cluster and start the agents, which import what trainings need.

        Raises:
            UserError: No cluster answers, no node has room, or the project has too much code.
        """
        assert self._place.cluster is not None
        top, current, code = pack_code()
        self._opened.enter_context(connected(self._place.cluster))
        self._need = self._finder.need()
        variables = {name: value for name, value in os.environ.items() if name.startswith(SENT_VARIABLES)}
        self._settings["variables"] = variables
        self._code = top, current, ray.put(code)
        self._look_for_nodes()

    def check_store(self, store: Store) -> None:
        """Refuse a database file if there are nodes on other machines, and leave out those that join later.

        Raises:
            UserError: There are such nodes.
        """
        self._finder.only_here = store.folder is not None
        hosts = sorted({node.host for node in self._finder.head.answer()} - {platform.node()})
        if hosts and self._finder.only_here:
            raise UserError(
                f"{redact_credentials(store.uri)} is a file of this machine, which {', '.join(hosts)} cannot reach: "
                "runs of several machines need an MLflow server, --tracking_uri http://SERVER (docs/CLUSTERS.md)"
            )

    @property
    def free_slots(self) -> list[int]:
        return list(range(room(slots_by_node(self._agents, free=True).values(), self._finder.nodes)))

    def start(self, *jobs: Job) -> None:
        """Train a job, or several stacked ones, on the node with the most free slots, or on several of these."""
        if self._finder.nodes == 1:
            agent = max(self._agents, key=lambda agent: agent.free_slots)
            self.children += agent.start(jobs)
            return
        (job,) = jobs
        self.children.append(start_group(job, choose(self._agents, self._finder.nodes)))

    def check(self, job: Job, configurations: list[dict[str, Any]]) -> dict[str, Any]:
        """Check an experiment on a node; see `Pool.check`.

        Raises:
            UserError: See `Pool.check`, or no agent starts.
        """
        for _ in range(START_TRIES):
            agent = self._first_agent()
            try:
                kind, content = ray.get(agent.call("check", asdict(job), configurations))
            except RayError as error:
                self._lose(agent, error)
                continue
            if kind != "done":
                raise UserError(content)
            facts: dict[str, Any] = content
            self._check_devices(facts["devices"])
            return facts
        raise UserError(f"--cluster {self._place.cluster}: the agents die while they check the experiment")

    def use_nodes(self, number: int) -> None:
        """Have each training use so many nodes; see `Pool.use_nodes`."""
        self._finder.nodes, self._look_after = number, 0.0
        self._count_slots()
        if (found := len(self._finder.head.answer())) < number:
            logger.warning("trainer.num_nodes is %d, the cluster has %d: waiting for nodes that join", number, found)

    def _check_devices(self, devices: int) -> None:
        gpus = math.ceil(self._need.gpus)
        if gpus and gpus != devices:
            raise UserError(f"--gpus {self._need.gpus:g}: a training uses {devices}; set --trainer.devices {gpus}")

    def _first_agent(self) -> RemoteAgent:
        """Wait for the first agent that has slots.

        Raises:
            UserError: See `events`.
        """
        message_at = time.monotonic() + WAIT_S
        while True:
            self.events(0.25)
            if agent := next((agent for agent in self._agents if agent.free_slots), None):
                return agent
            if time.monotonic() > message_at:
                message_at = math.inf
                logger.info("waiting for %s on a node of the cluster", self._need)

    def events(self, timeout: float) -> list[Event]:
        """Wait for messages that need an action, as `Pool.events`; also ("lost", reason) of trainings.

        Raises:
            UserError: No agent starts on any node, or the head does not answer.
        """
        if time.monotonic() > self._look_after and not self.stop_requests:
            self._look_for_nodes()
        received = self._pass_on_stop()
        kill_faulty(self._trainings())
        for agent in self._agents:
            agent.flush()
        agents = {agent.reply: agent for agent in self._agents}
        if received or not agents:
            time.sleep(0 if received else timeout)
            return received
        ready, _ = ray.wait(list(agents), timeout=timeout)
        if ready:
            ready, _ = ray.wait(list(agents), num_returns=len(agents), timeout=0)
        return [event for reply in ready for event in self._take_reply(agents[reply])]

    def kill_all(self) -> None:
        """Kill all trainings, and the agents that do not answer."""
        calls = {agent.call("kill_all"): agent for agent in self._agents if agent.trainings}
        if calls:
            ray.wait(list(calls), num_returns=len(calls), timeout=ANSWER_S)
        for call, agent in calls.items():
            try:
                ray.get(call, timeout=0.1)
            except RayError:
                agent.kill()
                self._agents.remove(agent)
            agent.trainings.clear()
        self.children.clear()
        self._count_slots()

    def _look_for_nodes(self) -> None:
        """Start agents on the nodes that have room for further trainings."""
        self._look_after = time.monotonic() + LOOK_S
        for node, slots in self._finder.find(self._need, self._agents):
            cpus = self._need.cpus_each(*node.total)
            settings = {**self._settings, "threads": max(1, int(cpus))}
            self._agents.append(RemoteAgent(node, slots, cpus, self._need.gpus, self._code, settings))
        if not self._agents and not self._is_waiting:
            logger.warning("no node has %s for a training: waiting for one that joins", self._need)
        self._is_waiting = not self._agents

    def _take_reply(self, agent: RemoteAgent) -> list[Event]:
        try:
            result = ray.get(agent.reply)
        except RayError as error:
            return self._lose(agent, error)
        agent.reply = None
        if agent.is_ready:
            received = [self._event(agent, *event) for event in result]
            return [event for event in received if event is not None]
        agent.welcome(result)
        self._count_slots()
        return []

    def _event(self, agent: RemoteAgent, number: int, message: Message, log: str) -> Event | None:
        """Return a message with its training if it needs an action, and remove a training that has ended."""
        training = agent.trainings.get(number)
        if training is None:  # killed since
            return None
        if message[0] == "run":
            training.run_id, training.max_epochs = message[1:]
            return None
        if message[0] == "epoch":
            training.epoch, training.value = message[1:]
        else:
            self._remove(training)
            if not is_first(training):
                on_end_of_other(training, message)
                return None
            end_others(training)
            message = last_message(training, message)
        if log:
            path = self._folder / f"{next(self._file_numbers)}.log"
            path.write_text(log)
            training.job.log_file = str(path)
        return training, message

    def _lose(self, agent: RemoteAgent, error: RayError) -> list[Event]:
        """Give up an agent that has died, or cannot be reached, and its trainings."""
        agent.kill()  # one that cannot be reached may live, and train
        self._agents.remove(agent)
        self._count_slots()
        reason = f"node {agent.node.host}: {describe(error)}"
        if not agent.is_ready:
            self._finder.note_failure(agent.node, reason)
        lost = list(agent.trainings.values())
        for training in lost:
            self._remove(training)
            if is_first(training):
                end_others(training)
            else:
                on_end_of_other(training, ("lost", reason))
        return [(training, ("lost", reason)) for training in lost if is_first(training)]

    def _remove(self, training: RemoteTraining) -> None:
        assert training.agent is not None
        training.agent.remove(training)
        if training in self.children:  # it is the only process of its training, or the first
            self.children.remove(training)

    def _count_slots(self) -> None:
        self.workers = room(slots_by_node(self._agents, free=False).values(), self._finder.nodes)

    def _trainings(self) -> list[RemoteTraining]:
        return [training for agent in self._agents for training in agent.trainings.values()]

    def _pass_on_stop(self) -> list[Event]:
        """Have the agents stop or kill their trainings if that was requested; give up those that do not answer."""
        if self.stop_requests > self._stops_sent:
            self._stops_sent = self.stop_requests
            self._stop_by = time.monotonic() + (GRACE_S if self.stop_requests == 1 else 0) + ANSWER_S
            for agent in self._agents:
                agent.command("stop", self.stop_requests)
        if not self._stops_sent or time.monotonic() < self._stop_by:
            return []
        silent = [agent for agent in self._agents if agent.trainings]
        error = RayError("its agent does not answer")
        return [event for agent in silent for event in self._lose(agent, error)]
