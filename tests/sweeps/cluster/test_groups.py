"""Trainings over several nodes: how many have room, and which message tells why one has ended."""

import time

import pytest

pytest.importorskip("ray")

from sweeps.cluster.groups import last_message, on_end_of_other, room
from sweeps.cluster.remote_agent import RemoteTraining
from sweeps.workers.job import Job


class Agent:
    """A fake agent: it has a node and records its commands."""

    def __init__(self, host):
        self.node, self.host, self.trainings, self.commands = self, host, {}, []

    def command(self, *command):
        self.commands.append(command)


@pytest.fixture
def group():
    group = []
    for number, host in enumerate(("one", "two")):
        agent = Agent(host)
        training = RemoteTraining(Job([]), None, None, time.monotonic(), [], None, number=number, agent=agent)
        training.group, agent.trainings[number] = group, training
        group.append(training)
    return group


@pytest.mark.parametrize(
    ("slots", "nodes", "number"),
    [
        ([4, 4], 1, 8),
        ([4, 4], 2, 4),
        ([8, 1], 2, 1),
        ([3, 2, 1], 2, 3),
        ([3, 2, 2], 2, 3),
        ([1, 1, 1], 2, 1),
        ([8], 2, 0),
        ([], 2, 0),
        ([2, 2, 2, 2], 3, 2),
    ],
)
def test_a_training_over_several_nodes_has_one_slot_of_each(slots, nodes, number):
    assert room(slots, nodes) == number


@pytest.mark.parametrize(
    ("other", "first", "shown"),
    [
        (("died", "killed (SIGKILL)"), ("failed", "connection closed by peer"), ("died", "node two: killed (SIGKILL)")),
        (("lost", "node two: gone"), ("died", "killed (SIGKILL)"), ("lost", "node two: gone")),
        (("failed", "connection closed by peer"), ("failed", "out of memory"), ("failed", "out of memory")),
        (("failed", "out of memory"), ("died", "killed (SIGKILL)"), ("failed", "node two: out of memory")),
        (("done", {}), ("pruned", "after epoch 1"), ("pruned", "after epoch 1")),
        (("stopped", "SystemExit"), ("stopped", "SystemExit"), ("stopped", "SystemExit")),
        (("died", "killed (SIGKILL)"), ("done", {"val/acc": 1.0}), ("done", {"val/acc": 1.0})),
    ],
)
def test_the_cause_is_told_and_not_what_follows_from_it(group, other, first, shown):
    on_end_of_other(group[1], other)
    assert last_message(group[0], first) == shown
